"""Toys, drawn from scratch without picture files: how, and the eight classes of the demo's scenes.

Each class is one function that draws a toy in unit coordinates (x to the right, y down, 0..1)
with two or three colours of a palette. A `Bank` draws many variants of every class once, large
and supersampled, lights them from the upper left, and hands out copies scaled, mirrored and
turned; drawing a toy anew for every scene would cost ten times as much.
"""

import colorsys
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

SPRITE_PX = 160
SUPERSAMPLING = 3

Colour = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class Palette:
    """The colours that toys of one style come in: hue in degrees, saturation and value in 0..1."""

    hues: tuple[tuple[float, float], ...]
    saturation: tuple[float, float]
    value: tuple[float, float]

    def pick(self, rng: np.random.Generator) -> Colour:
        """One colour, 8 bits a channel."""
        low, high = self.hues[int(rng.integers(len(self.hues)))]
        hue = (rng.uniform(low, high) % 360) / 360
        red, green, blue = colorsys.hsv_to_rgb(
            hue, rng.uniform(*self.saturation), rng.uniform(*self.value)
        )
        return int(red * 255), int(green * 255), int(blue * 255)


def shade(colour: Colour, factor: float) -> Colour:
    """A darker (factor < 1) or lighter colour."""
    red, green, blue = (max(0, min(255, int(c * factor))) for c in colour)
    return red, green, blue


class Pen:
    """Draws in unit coordinates on a supersampled canvas, with two colours of a palette at hand."""

    def __init__(self, rng: np.random.Generator, palette: Palette) -> None:
        self.size = SPRITE_PX * SUPERSAMPLING
        self.canvas = Image.new("RGBA", (self.size, self.size), (0, 0, 0, 0))
        self.draw = ImageDraw.Draw(self.canvas)
        self.rng = rng
        self.body = palette.pick(rng)
        self.trim = palette.pick(rng)

    def _px(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self.size, y * self.size) for x, y in points]

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """A filled polygon."""
        self.draw.polygon(self._px(points), fill=(*colour, 255))

    def disc(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """A filled ellipse around (x, y)."""
        corners = self._px([(x - rx, y - ry), (x + rx, y + ry)])
        self.draw.ellipse([*corners[0], *corners[1]], fill=(*colour, 255))

    def block(
        self, left: float, top: float, right: float, bottom: float, colour: Colour, r: float = 0.0
    ) -> None:
        """A filled rectangle, its corners rounded by `r`."""
        corners = self._px([(left, top), (right, bottom)])
        self.draw.rounded_rectangle(
            [*corners[0], *corners[1]], radius=r * self.size, fill=(*colour, 255)
        )

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """A line through the points."""
        self.draw.line(
            self._px(points), fill=(*colour, 255), width=round(width * self.size), joint="curve"
        )

    def curve(self, function: Callable[[float], Point], colour: Colour, steps: int = 40) -> None:
        """The filled outline that `function` runs around as it goes from 0 to 1."""
        self.polygon([function(i / steps) for i in range(steps + 1)], colour)


GLASS: Colour = (188, 220, 236)
INK: Colour = (44, 46, 56)
WOOD: Colour = (128, 90, 58)


def chassis(pen: Pen, nose: float) -> None:
    """The lower half of what drives: body, stripe, lamp, and wheels `nose` away from its ends."""
    pen.block(0.05, 0.46, 0.95, 0.70, pen.body, r=0.07)
    pen.block(0.05, 0.58, 0.95, 0.63, pen.trim)
    pen.disc(0.92, 0.53, 0.03, 0.03, (255, 238, 170))
    for x in (0.06 + nose, 0.94 - nose):
        pen.disc(x, 0.70, 0.115, 0.115, INK)
        pen.disc(x, 0.70, 0.055, 0.055, (205, 208, 214))


def _car(pen: Pen) -> None:
    roof = pen.rng.uniform(0.20, 0.30)
    nose = pen.rng.uniform(0.16, 0.24)
    pen.polygon([(0.20, 0.48), (0.32, roof), (0.68, roof), (0.84, 0.48)], pen.body)
    pen.polygon([(0.27, 0.47), (0.36, roof + 0.05), (0.49, roof + 0.05), (0.49, 0.47)], GLASS)
    pen.polygon([(0.53, 0.47), (0.53, roof + 0.05), (0.65, roof + 0.05), (0.76, 0.47)], GLASS)
    chassis(pen, nose)


def _boat(pen: Pen) -> None:
    mast = pen.rng.uniform(0.44, 0.54)
    pen.line([(mast, 0.06), (mast, 0.70)], WOOD, 0.03)
    pen.polygon([(mast + 0.03, 0.08), (mast + 0.03, 0.62), (0.90, 0.62)], (246, 242, 230))
    pen.polygon([(mast - 0.03, 0.18), (mast - 0.03, 0.62), (0.14, 0.62)], pen.trim)
    pen.polygon([(0.05, 0.67), (0.95, 0.67), (0.78, 0.92), (0.22, 0.92)], pen.body)
    pen.polygon([(0.05, 0.67), (0.95, 0.67), (0.918, 0.717), (0.082, 0.717)], shade(pen.body, 0.65))


def _house(pen: Pen) -> None:
    eaves = pen.rng.uniform(0.38, 0.46)
    pen.block(0.68, 0.12, 0.79, 0.40, shade(pen.trim, 0.7))
    pen.block(0.14, eaves, 0.86, 0.95, pen.body)
    pen.polygon([(0.03, eaves + 0.03), (0.50, 0.05), (0.97, eaves + 0.03)], pen.trim)
    door = 0.24 if pen.rng.random() < 0.5 else 0.58
    pen.block(door, 0.64, door + 0.18, 0.95, shade(pen.trim, 0.6), r=0.02)
    window = 0.80 - door
    pen.block(window - 0.11, 0.58, window + 0.11, 0.78, (250, 246, 232))
    pen.block(window - 0.085, 0.605, window + 0.085, 0.755, GLASS)
    pen.line([(window, 0.60), (window, 0.76)], (250, 246, 232), 0.025)


def _tree(pen: Pen) -> None:
    pen.block(0.43, 0.62, 0.57, 0.96, WOOD, r=0.02)
    leaf = (
        int(pen.rng.uniform(40, 110)),
        int(pen.rng.uniform(120, 175)),
        int(pen.rng.uniform(50, 100)),
    )
    if pen.rng.random() < 0.5:
        for i, half in enumerate((0.40, 0.33, 0.25)):
            top = 0.42 - 0.18 * i
            pen.polygon(
                [(0.5 - half, top + 0.33), (0.5, top), (0.5 + half, top + 0.33)],
                shade(leaf, 0.85 + 0.13 * i),
            )
    else:
        for x, y, r in (
            (0.30, 0.46, 0.22),
            (0.70, 0.46, 0.22),
            (0.50, 0.30, 0.26),
            (0.5, 0.5, 0.24),
        ):
            pen.disc(x, y, r, r * 0.95, shade(leaf, pen.rng.uniform(0.85, 1.15)))
        for _ in range(5):
            x, y = pen.rng.uniform(0.22, 0.78), pen.rng.uniform(0.24, 0.58)
            pen.disc(x, y, 0.035, 0.035, pen.trim)


def _balloon(pen: Pen) -> None:
    pen.line([(0.32, 0.60), (0.41, 0.84)], WOOD, 0.014)
    pen.line([(0.68, 0.60), (0.59, 0.84)], WOOD, 0.014)

    def envelope(width: float) -> Callable[[float], Point]:
        def at(t: float) -> Point:
            angle = 2 * math.pi * t
            narrow = 1 - 0.33 * max(0.0, math.sin(angle)) ** 2
            return 0.5 + width * math.cos(angle) * narrow, 0.38 + 0.34 * math.sin(angle)

        return at

    pen.curve(envelope(0.36), pen.body)
    pen.curve(envelope(0.23), pen.trim)
    pen.curve(envelope(0.09), pen.body)
    pen.block(0.385, 0.82, 0.615, 0.97, (156, 108, 62), r=0.03)
    pen.block(0.385, 0.82, 0.615, 0.86, (112, 76, 44))


def _fish(pen: Pen) -> None:
    fin = shade(pen.trim, 0.9)
    pen.polygon([(0.66, 0.50), (0.97, 0.26), (0.90, 0.50), (0.97, 0.74)], fin)
    pen.polygon([(0.30, 0.34), (0.46, 0.14), (0.62, 0.36)], fin)
    pen.polygon([(0.36, 0.66), (0.48, 0.82), (0.58, 0.64)], fin)
    pen.curve(
        lambda t: (
            0.41 - 0.37 * math.cos(2 * math.pi * t),
            0.50 + 0.23 * math.sin(2 * math.pi * t) * (1 - 0.15 * math.cos(2 * math.pi * t)),
        ),
        pen.body,
    )
    for x in (0.42, 0.55):
        half = 0.18 * (1 - (x - 0.3) ** 2)
        pen.line([(x, 0.50 - half), (x + 0.03, 0.50), (x, 0.50 + half)], pen.trim, 0.045)
    pen.disc(0.20, 0.44, 0.055, 0.055, (250, 250, 246))
    pen.disc(0.19, 0.44, 0.028, 0.028, INK)


def _rocket(pen: Pen) -> None:
    pen.polygon([(0.40, 0.80), (0.50, 0.99), (0.60, 0.80)], (250, 178, 52))
    pen.polygon([(0.33, 0.52), (0.12, 0.86), (0.36, 0.78)], pen.trim)
    pen.polygon([(0.67, 0.52), (0.88, 0.86), (0.64, 0.78)], pen.trim)
    pen.polygon(
        [
            *[(0.50, 0.02), (0.62, 0.16), (0.69, 0.36), (0.69, 0.62), (0.63, 0.82)],
            *[(0.37, 0.82), (0.31, 0.62), (0.31, 0.36), (0.38, 0.16)],
        ],
        pen.body,
    )
    pen.polygon([(0.50, 0.02), (0.62, 0.16), (0.655, 0.25), (0.345, 0.25), (0.38, 0.16)], pen.trim)
    pen.disc(0.5, 0.42, 0.11, 0.11, (240, 240, 236))
    pen.disc(0.5, 0.42, 0.075, 0.075, GLASS)
    pen.block(0.345, 0.66, 0.655, 0.71, shade(pen.trim, 0.8))


def _duck(pen: Pen) -> None:
    pen.polygon([(0.62, 0.56), (0.97, 0.42), (0.88, 0.76)], pen.body)
    pen.disc(0.54, 0.68, 0.38, 0.24, pen.body)
    pen.disc(0.32, 0.32, 0.21, 0.21, pen.body)
    pen.polygon([(0.16, 0.30), (0.01, 0.38), (0.16, 0.44)], (244, 148, 48))
    pen.disc(0.27, 0.27, 0.045, 0.045, (250, 250, 246))
    pen.disc(0.26, 0.27, 0.024, 0.024, INK)
    pen.curve(
        lambda t: (
            0.60 + 0.20 * math.cos(2 * math.pi * t),
            0.66 + 0.11 * math.sin(2 * math.pi * t),
        ),
        shade(pen.trim, 0.9),
    )


@dataclass(frozen=True)
class Toy:
    """A class of the scenes: its COCO category, how it is drawn, how far it turns (degrees)."""

    name: str
    supercategory: str
    paint: Callable[[Pen], None]
    turn: float


TOYS: tuple[Toy, ...] = (
    Toy("car", "vehicle", _car, 25),
    Toy("boat", "vehicle", _boat, 25),
    Toy("house", "outdoor", _house, 15),
    Toy("tree", "outdoor", _tree, 15),
    Toy("balloon", "vehicle", _balloon, 20),
    Toy("fish", "animal", _fish, 45),
    Toy("rocket", "vehicle", _rocket, 60),
    Toy("duck", "animal", _duck, 20),
)


def draw_toy(toy: Toy, palette: Palette, rng: np.random.Generator) -> Image.Image:
    """One variant of a toy, lit from the upper left: RGBA, trimmed to its opaque part."""
    pen = Pen(rng, palette)
    toy.paint(pen)
    small = pen.canvas.resize((SPRITE_PX, SPRITE_PX), Image.Resampling.BOX)
    alpha = small.getchannel("A")
    # a blurred, shifted silhouette is bright inside and dark towards the lower right rim
    rim = np.asarray(
        ImageChops.offset(alpha.filter(ImageFilter.GaussianBlur(9)), -6, -8), np.float32
    )
    ramp = np.linspace(1.10, 0.82, SPRITE_PX, dtype=np.float32)
    light = (0.55 + 0.50 * rim / 255) * (0.5 * ramp[:, None] + 0.5 * ramp[None, :]) + 0.04
    rgb = np.clip(np.asarray(small.convert("RGB"), np.float32) * light[..., None], 0, 255)
    lit = Image.fromarray(rgb.astype(np.uint8))
    lit.putalpha(alpha)
    return lit.crop(alpha.point([255 * (a > 127) for a in range(256)]).getbbox())


class Bank:
    """Ready-made variants of some toys in one palette."""

    def __init__(
        self,
        palette: Palette,
        rng: np.random.Generator,
        toys: Sequence[Toy] = TOYS,
        n_variants: int = 16,
    ) -> None:
        self._toys = tuple(toys)
        self._sprites = [[draw_toy(toy, palette, rng) for _ in range(n_variants)] for toy in toys]

    def __len__(self) -> int:
        """How many toys there are to take from."""
        return len(self._toys)

    def take(self, toy: int, long_side_px: float, rng: np.random.Generator) -> Image.Image:
        """A random variant scaled to this size, mirrored half of the time, and turned: RGBA."""
        variants = self._sprites[toy]
        sprite = variants[int(rng.integers(len(variants)))]
        scale = long_side_px / max(sprite.size)
        size = (max(2, round(sprite.width * scale)), max(2, round(sprite.height * scale)))
        sprite = sprite.resize(size, Image.Resampling.BILINEAR)
        if rng.random() < 0.5:
            sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        angle = rng.uniform(-1, 1) * self._toys[toy].turn
        return sprite.rotate(angle, Image.Resampling.BICUBIC, expand=True)
