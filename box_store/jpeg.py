"""JPEG photos by libjpeg-turbo without Pillow between (extra `jpeg`): the same pixels, sooner.

Both decode with libjpeg-turbo and its accurate transform, so pixels are equal; the tests hold it.
What is no ordinary photo stays Pillow's: CMYK, damaged files, anything that makes the decoder warn.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def decode_photo(data: bytes, image: Image.Image) -> NDArray[np.uint8] | None:
    """uint8 RGB [H, W, 3] of the JPEG in `data`, None where Pillow has to decode it.

    image: what Pillow made of its header, not decoded yet.
    """
    if image.format != "JPEG" or image.mode not in ("RGB", "L"):
        return None
    decoder = _simplejpeg()
    if decoder is None:
        return None
    try:
        pixels = decoder.decode_jpeg(data, "RGB")
    except ValueError:
        # damaged, or nearly so: Pillow says how, or reads it all the same
        return None
    return pixels if pixels.shape == (image.height, image.width, 3) else None


@lru_cache(maxsize=1)
def _simplejpeg() -> Any:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg
