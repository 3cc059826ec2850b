"""Clutter: things in the toys' own colours that are no toys, and pieces torn off toys.

A wheel, a sail or a striped disc alone is not an object, however much it looks like a part of one.
"""

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from teach_detr.scenes.sprites import GLASS, INK, WOOD, Pen, Toy, shade

# more of a toy than this would be a toy that somebody forgot to label
TORN_PART = (0.25, 0.40)


def _wheel(pen: Pen) -> None:
    pen.disc(0.5, 0.5, 0.45, 0.45, INK if pen.rng.random() < 0.4 else pen.body)
    inner = pen.rng.uniform(0.15, 0.32)
    pen.disc(0.5, 0.5, inner, inner, GLASS if pen.rng.random() < 0.3 else pen.trim)


def _rod(pen: Pen) -> None:
    half = pen.rng.uniform(0.03, 0.09)
    pen.block(0.02, 0.5 - half, 0.98, 0.5 + half, WOOD if pen.rng.random() < 0.4 else pen.body)
    pen.block(0.02, 0.5 - half, 0.20, 0.5 + half, pen.trim)


def _sail(pen: Pen) -> None:
    x = pen.rng.uniform(0.1, 0.9)
    pen.polygon([(x, 0.05), (0.95, 0.92), (0.05, 0.92)], pen.body)
    pen.polygon([(0.88, 0.80), (0.95, 0.92), (0.05, 0.92), (0.12, 0.80)], pen.trim)


def _brick(pen: Pen) -> None:
    half = pen.rng.uniform(0.18, 0.40)
    pen.block(0.05, 0.5 - half, 0.95, 0.5 + half, pen.body, r=0.05)
    if pen.rng.random() < 0.6:
        pen.block(0.15, 0.5 - 0.5 * half, 0.45, 0.5 + 0.5 * half, GLASS)
    pen.block(0.55, 0.5 - half, 0.70, 0.5 + half, shade(pen.trim, 0.8))


def _scribble(pen: Pen) -> None:
    points = [(float(x), float(y)) for x, y in pen.rng.uniform(0.06, 0.94, (5, 2))]
    pen.line(points, pen.body, pen.rng.uniform(0.03, 0.07))


def _egg(pen: Pen) -> None:
    height = pen.rng.uniform(0.24, 0.42)
    pen.disc(0.5, 0.5, 0.45, height, pen.body)
    pen.disc(0.5, 0.5, 0.18, height, pen.trim)
    if pen.rng.random() < 0.5:
        pen.disc(0.25, 0.42, 0.05, 0.05, (250, 250, 246))


CLUTTER: tuple[Toy, ...] = tuple(
    Toy(paint.__name__.removeprefix("_"), "clutter", paint, 180)
    for paint in (_wheel, _rod, _sail, _brick, _scribble, _egg)
)


def tear(sprite: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A piece of a sprite behind a ragged edge in a random direction: RGBA of the same size."""
    angle = rng.uniform(0, 2 * np.pi)
    along, across = (
        np.array([np.cos(angle), np.sin(angle)]),
        np.array([-np.sin(angle), np.cos(angle)]),
    )
    opaque = np.argwhere(np.asarray(sprite.getchannel("A")) > 127)[:, ::-1] @ along
    edge = float(np.quantile(opaque, rng.uniform(*TORN_PART)))
    reach = float(sum(sprite.size))
    steps = np.linspace(-reach, reach, 41)
    # the ragged edge only takes away: what is kept stays below the largest part
    ragged = [along * (edge - rng.uniform(0, 0.06) * max(sprite.size)) + across * s for s in steps]
    far = [along * (-reach) + across * s for s in (reach, -reach)]
    mask = Image.new("L", sprite.size)
    ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in (*ragged, *far)], fill=255)
    torn = sprite.copy()
    torn.putalpha(ImageChops.multiply(sprite.getchannel("A"), mask))
    return torn
