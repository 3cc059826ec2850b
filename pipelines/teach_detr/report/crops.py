"""Pieces of images as they are embedded in a page."""

import base64
import io
from collections.abc import Sequence

from PIL import Image, ImageDraw

_JPEG_QUALITY = 78
CROP_PX = 128
# context around a box, as a share of its longer side
_MARGIN = 0.6


def crop(picture: Image.Image, corners: Sequence[float], longest_px: int = CROP_PX) -> str:
    """A box, x1, y1, x2, y2 in pixels, with its surroundings, as a data URI."""
    x1, y1, x2, y2 = corners
    margin = _MARGIN * max(x2 - x1, y2 - y1)
    left, top = max(0, int(x1 - margin)), max(0, int(y1 - margin))
    right = max(left + 1, min(picture.width, int(x2 + margin)))
    bottom = max(top + 1, min(picture.height, int(y2 + margin)))
    scale = longest_px / max(right - left, bottom - top)
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    part = picture.crop((left, top, right, bottom)).resize(size, Image.Resampling.LANCZOS)
    drawn = [(x1 - left) * scale, (y1 - top) * scale, (x2 - left) * scale, (y2 - top) * scale]
    draw = ImageDraw.Draw(part)
    # light within dark is seen on any ground
    draw.rectangle(drawn, outline="black", width=3)
    draw.rectangle([c + d for c, d in zip(drawn, (1, 1, -1, -1), strict=True)], outline="white")
    return data_uri(part, longest_px)


def data_uri(picture: Image.Image, longest_px: int) -> str:
    """A JPEG, at most so many pixels on the longer side."""
    picture.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
