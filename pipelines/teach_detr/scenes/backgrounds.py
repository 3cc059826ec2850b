"""Textured grounds for the demo's scenes: one large picture a kind, cut anew for every scene."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_SIDE = 512


def value_noise(rng: np.random.Generator, cells: int, octaves: int = 3) -> np.ndarray:
    """Smooth noise [512, 512] in 0..1: random grids, finer and finer, interpolated and summed."""
    total = np.zeros((_SIDE, _SIDE), np.float32)
    weight = 0.0
    for octave in range(octaves):
        n = cells * 2**octave
        grid = rng.random((n + 1, n + 1), dtype=np.float32)
        at = np.linspace(0, n, _SIDE, endpoint=False, dtype=np.float32)
        low = at.astype(int)
        part = at - low
        rows = grid[low] * (1 - part)[:, None] + grid[low + 1] * part[:, None]
        total += (rows[:, low] * (1 - part) + rows[:, low + 1] * part) / 2**octave
        weight += 1 / 2**octave
    return total / weight


def _grid() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0:_SIDE, 0:_SIDE].astype(np.float32)
    return x, y


def _cloth(rng: np.random.Generator) -> np.ndarray:
    x, y = _grid()
    weave = 0.5 + 0.25 * np.sin(x * 1.3) + 0.25 * np.sin(y * 1.3)
    return 0.35 * weave + 0.65 * value_noise(rng, 4)


def _planks(rng: np.random.Generator) -> np.ndarray:
    _, y = _grid()
    width = int(rng.integers(36, 60))
    plank = (y // width).astype(int)
    tone = rng.random(_SIDE // width + 2, dtype=np.float32)[plank]
    grain = np.sin((y % width) * 0.7 + 9 * value_noise(rng, 3, 2) + tone * 30)
    gap = (y % width) < 2
    return np.where(gap, 0.0, 0.45 * tone + 0.18 * grain + 0.35)


def _tiles(rng: np.random.Generator) -> np.ndarray:
    x, y = _grid()
    side = int(rng.integers(40, 70))
    odd = ((x // side).astype(int) + (y // side).astype(int)) % 2
    joint = ((x % side) < 2) | ((y % side) < 2)
    return np.where(joint, 0.15, 0.30 + 0.30 * odd + 0.35 * value_noise(rng, 12))


def _sand(rng: np.random.Generator) -> np.ndarray:
    return 0.6 * value_noise(rng, 3, 4) + 0.4 * rng.random((_SIDE, _SIDE), dtype=np.float32)


def _waves(rng: np.random.Generator) -> np.ndarray:
    x, y = _grid()
    bend = value_noise(rng, 4, 3)
    return 0.5 + 0.22 * np.sin(y * 0.22 + 10 * bend) + 0.22 * np.sin(x * 0.05 + 14 * bend)


def _blots(rng: np.random.Generator) -> np.ndarray:
    noise = value_noise(rng, 7, 2)
    return 0.55 * (noise > 0.52) + 0.35 * value_noise(rng, 20, 2)


_KINDS: tuple[Callable[[np.random.Generator], np.ndarray], ...] = (
    _cloth,
    _planks,
    _tiles,
    _sand,
    _waves,
    _blots,
)


@dataclass(frozen=True)
class Ground:
    """Between which two colours a texture of a style runs: RGB, 0..255."""

    dark: tuple[int, int, int]
    light: tuple[int, int, int]


def make_grounds(grounds: tuple[Ground, ...], rng: np.random.Generator) -> list[np.ndarray]:
    """Every kind of texture in every pair of colours: float32 [512, 512, 3], 0..255."""
    pictures: list[np.ndarray] = []
    for kind in _KINDS:
        texture = kind(rng)[..., None].astype(np.float32)
        for ground in grounds:
            dark = np.asarray(ground.dark, np.float32)
            pictures.append(dark + (np.asarray(ground.light, np.float32) - dark) * texture)
    return pictures


def cut(
    pictures: list[np.ndarray], width: int, height: int, rng: np.random.Generator
) -> np.ndarray:
    """A random piece of a random texture, mirrored or turned: float32 [height, width, 3]. Textures
    are laid side by side where one is too small.
    """
    picture = pictures[int(rng.integers(len(pictures)))]
    repeats = [-(-side // _SIDE) for side in (height, width)]
    picture = np.tile(picture, (max(repeats), max(repeats), 1))
    if rng.random() < 0.5:
        picture = picture.transpose(1, 0, 2)
    top = int(rng.integers(len(picture) - height + 1))
    left = int(rng.integers(len(picture) - width + 1))
    piece = picture[top : top + height, left : left + width]
    return piece[:, ::-1] if rng.random() < 0.5 else piece
