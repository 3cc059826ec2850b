"""Seeded scenes in COCO's layout: toys on textured grounds, with exact boxes.

The data sets of `teach-detr demo` and `teach-detr scenes`. Every label is known exactly, because
the scene is drawn; so labels can be withheld on purpose (`thin`) to give the defect that teacher
boxes repair: unlabelled objects in the training split. Worlds differ in what there is to see.
Styles differ in colours, grounds, light and noise, not in what the toys are: a detector taught on
one style meets another one as a shifted domain.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from box_store.errors import UsageError, nearest
from teach_detr.scenes.backgrounds import Ground, cut, make_grounds
from teach_detr.scenes.clutter import CLUTTER, tear
from teach_detr.scenes.sprites import Bank, Palette
from teach_detr.scenes.worlds import WORLDS, World


@dataclass(frozen=True)
class Style:
    """A domain: what colours toys and grounds come in, and what light and camera do to them."""

    palette: Palette
    grounds: tuple[Ground, ...]
    brightness: tuple[float, float]
    tint: tuple[float, float, float]
    grain: float
    vignette: float


STYLES: dict[str, Style] = {
    # daylight on pale paper and wood: what the shipped start weights were trained on
    "day": Style(
        palette=Palette(((0, 60), (180, 330)), (0.55, 0.95), (0.65, 1.0)),
        grounds=(
            Ground((196, 180, 150), (244, 236, 218)),
            Ground((150, 186, 160), (214, 232, 206)),
            Ground((150, 178, 204), (220, 234, 244)),
        ),
        brightness=(0.9, 1.08),
        tint=(1.0, 1.0, 1.0),
        grain=3.0,
        vignette=0.10,
    ),
    # lamplight on dark floors: what the demo fine-tunes on
    "dusk": Style(
        palette=Palette(((0, 360),), (0.30, 0.85), (0.55, 0.95)),
        grounds=(
            Ground((46, 38, 54), (112, 92, 100)),
            Ground((28, 48, 62), (78, 112, 122)),
            Ground((70, 44, 34), (146, 104, 74)),
        ),
        brightness=(0.72, 1.05),
        tint=(1.08, 0.97, 0.84),
        grain=8.0,
        vignette=0.42,
    ),
    # under water: a third domain, for teachers that have seen more of the world than the student
    "reef": Style(
        palette=Palette(((20, 200), (280, 360)), (0.40, 0.90), (0.60, 1.0)),
        grounds=(
            Ground((24, 84, 104), (96, 178, 184)),
            Ground((58, 96, 84), (168, 186, 140)),
            Ground((52, 60, 110), (140, 150, 196)),
        ),
        brightness=(0.8, 1.05),
        tint=(0.90, 1.02, 1.05),
        grain=5.0,
        vignette=0.25,
    ),
}

# a toy that shows less than this part of itself is not placed
MIN_VISIBLE = 0.55
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Scene:
    """A drawn scene: pixels uint8 [H, W, 3]; each toy's index in the world and visible box."""

    pixels: np.ndarray
    toys: np.ndarray  # int [N]
    boxes_xyxy: np.ndarray  # int [N, 4], corners in pixels


def check_names(styles: Sequence[str], world: str) -> None:
    """Raises UsageError unless there are such styles and such a world."""
    for what, names, table in (("style", styles, STYLES), ("world", [world], WORLDS)):
        unknown = next((name for name in names if name not in table), None)
        if unknown is not None:
            raise UsageError(
                f"unknown {what} of scenes '{unknown}': expected one of {', '.join(table)}."
                + nearest(unknown, table)
            )


class Painter:
    """Draws scenes of one or several styles; the textures and toys are prepared once.

    Raises:
        UsageError: an unknown style or world.
    """

    def __init__(self, styles: Sequence[str], seed: int, world: str = "toys") -> None:
        check_names(styles, world)
        self.world = WORLDS[world]
        rng = np.random.default_rng([seed, 1])
        self._kits = [_Kit(STYLES[name], self.world, rng) for name in styles]

    def paint(self, rng: np.random.Generator) -> Scene:
        """One scene, decided by the state of `rng` alone."""
        world = self.world
        kit = self._kits[int(rng.integers(len(self._kits)))]
        width, height = (int(rng.choice(world.sides_px)) for _ in range(2))
        table = _Table(cut(kit.grounds, width, height, rng))
        wanted = int(rng.integers(world.objects[0], world.objects[1] + 1))
        n_clutter = _between(world.clutter, rng)
        self._scatter(table, kit, n_clutter // 2, rng)
        low, high = world.long_side_px
        for _ in range(4 * wanted):
            if len(table.toys) == wanted:
                break
            toy = int(rng.integers(len(world.toys)))
            long_side = low * (min(high, 0.92 * min(width, height)) / low) ** rng.random()
            sprite = kit.toys.take(toy, long_side, rng)
            x = round(rng.uniform(-0.2, 1.2 - 0.4) * width + 0.2 * (width - sprite.width))
            y = round(rng.uniform(-0.2, 1.2 - 0.4) * height + 0.2 * (height - sprite.height))
            table.put(sprite, x, y, toy)
        self._scatter(table, kit, n_clutter - n_clutter // 2, rng)
        return Scene(
            _develop(table.pixels, kit.style, rng), np.asarray(table.toys, int), table.boxes
        )

    def _scatter(self, table: "_Table", kit: "_Kit", n: int, rng: np.random.Generator) -> None:
        """Put up to `n` pieces of clutter where they leave enough of every toy to be seen."""
        low, high = self.world.long_side_px
        for _ in range(n):
            long_side = low * (high / low) ** rng.random()
            if rng.random() < _TORN_SHARE:
                toy = int(rng.integers(len(kit.toys)))
                piece = tear(kit.toys.take(toy, long_side, rng), rng)
            else:
                piece = kit.clutter.take(int(rng.integers(len(kit.clutter))), long_side, rng)
            left, top = rng.uniform(-0.3, 0.9, 2)
            table.put(piece, round(left * table.width), round(top * table.height), None)


# of the clutter
_TORN_SHARE = 0.35


def _between(ends: tuple[int, int], rng: np.random.Generator) -> int:
    # a world without clutter takes nothing from the generator
    return ends[0] if ends[0] == ends[1] else int(rng.integers(ends[0], ends[1] + 1))


class _Kit:
    """What one style makes of a world: grounds, toys, clutter."""

    def __init__(self, style: Style, world: World, rng: np.random.Generator) -> None:
        self.style = style
        self.grounds = make_grounds(style.grounds, rng)
        self.toys = Bank(style.palette, rng, world.toys)
        self.clutter = Bank(style.palette, rng, CLUTTER if world.clutter[1] else ())


class _Table:
    """The ground, what has been put on it, and which pixel shows which toy."""

    def __init__(self, ground: np.ndarray) -> None:
        self.height, self.width = ground.shape[:2]
        self.toys: list[int] = []
        self._canvas = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
        self._owner = np.full((self.height, self.width), -1, np.int16)
        # of every toy: its pixels, and how many of them show
        self._full_px = np.zeros(0, np.int64)
        self._shown_px = np.zeros(0, np.int64)

    def put(self, sprite: Image.Image, x: int, y: int, toy: int | None) -> None:
        """Put a toy, or clutter (None), on top, unless too little of it or of a toy would show."""
        opaque = np.asarray(sprite.getchannel("A")) > 127
        window = _window(x, y, sprite.size, (self.width, self.height))
        if window is None:
            return
        inside = opaque[window.sprite]
        if toy is not None and inside.sum() < MIN_VISIBLE * opaque.sum():
            return
        below = self._owner[window.canvas][inside]
        left = self._shown_px - np.bincount(below[below >= 0], minlength=len(self.toys))
        if (left < MIN_VISIBLE * self._full_px).any():
            return
        _drop_shadow(self._canvas, sprite, x, y)
        self._canvas.paste(sprite, (x, y), sprite)
        self._owner[window.canvas][inside] = -1 if toy is None else len(self.toys)
        self._shown_px = left
        if toy is not None:
            self.toys.append(toy)
            self._full_px = np.append(self._full_px, opaque.sum())
            self._shown_px = np.append(left, inside.sum())

    @property
    def pixels(self) -> np.ndarray:
        """The picture so far: float32 [H, W, 3], 0..255."""
        return np.asarray(self._canvas, np.float32)

    @property
    def boxes(self) -> np.ndarray:
        """The box of what shows of each toy: int [N, 4], corners in pixels."""
        found = [_extent(self._owner == i) for i in range(len(self.toys))]
        return np.asarray(found, int).reshape(-1, 4)


@dataclass(frozen=True)
class _Window:
    canvas: tuple[slice, slice]
    sprite: tuple[slice, slice]


def _window(x: int, y: int, size: tuple[int, int], frame: tuple[int, int]) -> _Window | None:
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + size[0], frame[0]), min(y + size[1], frame[1])
    if right <= left or bottom <= top:
        return None
    return _Window(
        (slice(top, bottom), slice(left, right)),
        (slice(top - y, bottom - y), slice(left - x, right - x)),
    )


def _drop_shadow(canvas: Image.Image, sprite: Image.Image, x: int, y: int) -> None:
    reach = max(2, max(sprite.size) // 16)
    shade = sprite.getchannel("A").point([a * 2 // 5 for a in range(256)])
    if reach > 2:
        shade = shade.filter(ImageFilter.BoxBlur(reach // 2))
    canvas.paste((18, 14, 24), (x + reach, y + reach), shade)


def _develop(pixels: np.ndarray, style: Style, rng: np.random.Generator) -> np.ndarray:
    """Light, colour cast, fall-off towards a random side, and grain."""
    height, width = pixels.shape[:2]
    centre_x, centre_y = rng.uniform(0.25, 0.75, 2)
    x = np.linspace(0, 1, width, dtype=np.float32) - np.float32(centre_x)
    y = np.linspace(0, 1, height, dtype=np.float32) - np.float32(centre_y)
    light = 1 - style.vignette * 1.6 * (y[:, None] ** 2 + x[None, :] ** 2)
    gain = np.float32(rng.uniform(*style.brightness)) * np.asarray(style.tint, np.float32)
    pixels = pixels * light[..., None] * gain
    pixels += style.grain * rng.standard_normal((height, width, 1), np.float32)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


# ids of the two splits must not meet, for one store may hold both
VAL_FIRST_ID = 900_001
VAL_SEED = 1_000_003


def make_split(
    out: Path,
    split: str,
    n_images: int,
    seed: int,
    styles: Sequence[str],
    *,
    world: str = "toys",
    thin: float = 0.0,
    first_id: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write `out/<split>/*.jpg` and `out/annotations/instances_<split>.json`; return that.

    `thin` is the share of objects that get no annotation (they are in the picture all the same).
    The same arguments give the same bytes: scene i depends on the seed and i alone, so a longer
    split begins with a shorter one.
    `progress` is called with the number of images drawn so far.

    Raises:
        UsageError: an unknown style or world, or `thin` outside 0..1.
    """
    if not 0 <= thin < 1:
        raise UsageError(
            f"thin is the share of objects left unlabelled: expected 0 <= thin < 1, got {thin}."
        )
    painter = Painter(styles, seed, world)
    folder = out / split
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for i in range(n_images):
        scene = painter.paint(np.random.default_rng([seed, 2, i]))
        kept = np.random.default_rng([seed, 3, i]).random(len(scene.toys)) >= thin
        image_id = first_id + i
        file_name = f"{image_id:06d}.jpg"
        Image.fromarray(scene.pixels).save(folder / file_name, quality=JPEG_QUALITY)
        height, width = scene.pixels.shape[:2]
        images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        for k in np.flatnonzero(kept):
            x0, y0, x1, y1 = (int(v) for v in scene.boxes_xyxy[k])
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(scene.toys[k]) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    # there are no masks, so an object is as large as its box
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                }
            )
        if progress is not None:
            progress(i + 1)
    path = out / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "info": {
            "description": f"drawn {world}, styles {'+'.join(styles)}, seed {seed}, thin {thin}"
        },
        "images": images,
        "annotations": annotations,
        "categories": painter.world.categories,
    }
    # the annotations are the commit: a split without them is drawn again
    part = path.with_suffix(".part")
    part.write_text(json.dumps(document))
    part.replace(path)
    return path


def make_scenes(
    out: Path,
    n_train: int,
    n_val: int,
    seed: int,
    *,
    world: str = "toys",
    thin: float = 0.33,
    styles: Sequence[str] = ("dusk",),
) -> Path:
    """A data set in COCO's layout: train2017 with thinned labels, val2017 complete. Returns `out`.

    Raises:
        UsageError: an unknown style or world, or `thin` outside 0..1.
    """
    make_split(out, "train2017", n_train, seed, styles, world=world, thin=thin)
    make_split(out, "val2017", n_val, seed + VAL_SEED, styles, world=world, first_id=VAL_FIRST_ID)
    return out
