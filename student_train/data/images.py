"""One image file to a tensor; `box_store.pixels` decodes it, for teachers and students alike."""

from dataclasses import dataclass

import torch
from torch import Tensor

from box_store.pixels import ImageError, read_pixels, read_upright
from box_store.places.locations import Location

__all__ = ["ImageError", "ImageProblem", "read_image"]


@dataclass(frozen=True)
class ImageProblem:
    """An image that could not be used, and why, in one sentence."""

    image_id: int
    message: str


_Key = tuple[str, tuple[int, int] | None, int]
"""which file, of what size, divided by what"""


class Decoded:
    """Photos as they were decoded, for processes that read the same ones in several runs."""

    def __init__(self) -> None:
        self.limit = 0
        self._size = 0
        self._photos: dict[_Key, Tensor] = {}

    def get(self, key: _Key) -> Tensor | None:
        """A copy, or None."""
        found = self._photos.get(key)
        return None if found is None else found.clone()

    def put(self, key: _Key, photo: Tensor) -> None:
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


def read_image(
    path: Location,
    size: tuple[int, int] | None = None,
    *,
    divisor: int = 1,
    oriented: bool = False,
) -> Tensor:
    """`decode`, once for each photo that is kept."""
    if oriented or not _decoded.limit:
        return decode(path, size, divisor=divisor, oriented=oriented)
    key = str(path), size, divisor
    found = _decoded.get(key)
    if found is None:
        found = decode(path, size, divisor=divisor)
        _decoded.put(key, found)
    return found


def decode(
    path: Location,
    size: tuple[int, int] | None = None,
    *,
    divisor: int = 1,
    oriented: bool = False,
) -> Tensor:
    """Decode a file to RGB, uint8 [3, H, W]. size: (width, height) that the file must have.
    divisor: by which the sides of photos are divided, as of `read_pixels`. oriented: turn it as its
    EXIF orientation says, where no annotation refers to stored pixels; it then comes whole.

    Raises ImageError, whose message names the file, and RemoteError where a server fails.
    """
    pixels = read_upright(path) if oriented else read_pixels(path, size, divisor)
    # a view: torchvision resizes pixels that lie together in half the time, bits equal
    return torch.from_numpy(pixels).permute(2, 0, 1)
