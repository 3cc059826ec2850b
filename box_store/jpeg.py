"""JPEG photos by libjpeg-turbo without Pillow between (extra `jpeg`): the same pixels, sooner.

Both decode with libjpeg-turbo and its accurate transform, so pixels are equal; the tests hold it.
What is no ordinary photo stays Pillow's: CMYK, damaged files, anything that makes the decoder warn.

Both can decode at a half, a quarter or an eighth of the size: a block of 8 x 8 pixels is 8 x 8
frequencies in the file, of which the lowest 4 x 4, 2 x 2 or 1 are transformed (libjpeg's
`scale_num` and `scale_denom`), so that most of the work is left out.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DIVISORS = (1, 2, 4, 8)


def largest_divisor(size: tuple[int, int], at_least: tuple[int, int]) -> int:
    """By what the sides of `size` can be divided and stay `at_least` so long, both in one order."""
    fits = [d for d in DIVISORS if all(s // d >= a for s, a in zip(size, at_least, strict=True))]
    return max(fits, default=1)


def decode_photo(data: bytes, image: Image.Image, divisor: int = 1) -> NDArray[np.uint8] | None:
    """uint8 RGB [H, W, 3] of the JPEG in `data`, None where Pillow has to decode it.

    image: what Pillow made of its header, not decoded yet. divisor: one of DIVISORS, by which both
    sides are divided and rounded up; where Pillow has to decode, `image` is told so.
    """
    if image.format != "JPEG" or image.mode not in ("RGB", "L"):
        return None
    width, height = (-(-side // divisor) for side in image.size)
    pixels = _decode(data, width, height)
    if pixels is None and divisor > 1:
        # Pillow divides by what leaves no side shorter than asked
        image.draft(None, (image.width // divisor or 1, image.height // divisor or 1))
    return pixels


def _decode(data: bytes, width: int, height: int) -> NDArray[np.uint8] | None:
    decoder = _simplejpeg()
    if decoder is None:
        return None
    try:
        pixels = decoder.decode_jpeg(data, "RGB", min_height=height, min_width=width)
    except ValueError:
        # damaged, or nearly so: Pillow says how, or reads it all the same
        return None
    return pixels if pixels.shape == (height, width, 3) else None


@lru_cache(maxsize=1)
def _simplejpeg() -> Any:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg
