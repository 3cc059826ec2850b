"""One image file to pixels, in the frame its annotations use.

Pillow reads the files, and JPEG photos a faster decoder of the same pixels where it is installed:
torchvision's own are deprecated since 0.29. COCO boxes refer to
the pixels as they are stored, so an EXIF orientation is not applied.
"""

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from box_store.errors import DataError
from box_store.jpeg import decode_photo
from box_store.places.locations import Location, RemoteError


@dataclass(frozen=True)
class ImageProblem:
    """An image that could not be used, and why, in one sentence."""

    image_id: int
    message: str


class ImageError(DataError):
    """An image file that is missing, damaged, or of another size than the annotations say."""


class Decoded:
    """Photos as they were decoded, for processes that read the same ones in several runs."""

    def __init__(self) -> None:
        self.limit = 0
        self._size = 0
        self._photos: dict[tuple[str, tuple[int, int] | None], Tensor] = {}

    def get(self, key: tuple[str, tuple[int, int] | None]) -> Tensor | None:
        """A copy, or None."""
        found = self._photos.get(key)
        return None if found is None else found.clone()

    def put(self, key: tuple[str, tuple[int, int] | None], photo: Tensor) -> None:
        """Keep one if there is room: what came first stays, as all of a set come in turns."""
        if self._size + photo.nbytes <= self.limit:
            self._photos[key] = photo.clone()
            self._size += photo.nbytes


_decoded = Decoded()


def keep_decoded(limit: int) -> None:
    """From now on keep the first decoded photos of this process, `limit` bytes of them. Files must
    not change while it lasts.
    """
    _decoded.limit = limit


def read_image(path: Location, size: tuple[int, int] | None = None) -> Tensor:
    """`decode`, once for each photo that is kept."""
    if not _decoded.limit:
        return decode(path, size)
    key = str(path), size
    found = _decoded.get(key)
    if found is None:
        found = decode(path, size)
        _decoded.put(key, found)
    return found


def decode(path: Location, size: tuple[int, int] | None = None) -> Tensor:
    """Decode a file to RGB, uint8 [3, H, W].

    Grayscale, palette, CMYK, 16-bit and transparent images are converted; the first frame of an
    animation is taken. size: (width, height) that the file must have.

    Raises ImageError, whose message names the file, and RemoteError where a server fails.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"no image file {path}") from None
    except RemoteError:
        # the server fails: that says nothing of the image
        raise
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        with Image.open(io.BytesIO(data)) as image:
            if size and image.size != size:
                raise ImageError(
                    f"{path} is {image.width} x {image.height} px, the annotations say "
                    f"{size[0]} x {size[1]}: its boxes would be in another frame"
                )
            pixels = decode_photo(data, image)
            if pixels is None:
                pixels = _rgb(image)
    except UnidentifiedImageError:
        raise ImageError(f"{path} is no image that Pillow can read ({len(data)} bytes)") from None
    except ImageError:
        raise
    except Exception as error:
        # decoders raise anything from OSError to SyntaxError and struct.error on damaged files
        raise ImageError(f"{path} cannot be decoded: {error}") from None
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _rgb(image: Image.Image) -> np.ndarray:
    """uint8 [H, W, 3]."""
    if image.mode.startswith("I"):
        # 16 bits of gray: keep the high byte, where Pillow would cut everything above 255
        gray = (np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))
