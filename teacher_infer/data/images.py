"""The images of a run as tasks for its workers; `box_store.pixels` decodes them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from box_store import pixels
from box_store.pixels import ImageError
from box_store.places.locations import Location, location

__all__ = ["ImageError", "ImageTask", "find_image", "load_image"]


@dataclass(frozen=True, slots=True)
class ImageTask:
    """An image to label: what the annotations say of it, and the folder it lies in.

    Workers receive these and never pixels: a path is cheap to send, and the pixels are decoded
    where they are needed. split: that the id is of.
    """

    image_id: int
    file_name: str
    width: int
    height: int
    root: str
    split: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """What identifies the image: its split and its id."""
        return self.split, self.image_id


def find_image(task: ImageTask) -> Location:
    """Where the image should lie; ImageError when its name leads out of its folder."""
    return pixels.find_image(location(task.root), task.file_name)


def load_image(task: ImageTask) -> NDArray[np.uint8]:
    """Decode an image to uint8 RGB of shape [height, width, 3], as stored on disk.

    Raises ImageError and RemoteError as `box_store.pixels.read_pixels` does.
    """
    data = pixels.read_file(find_image(task))
    return pixels.decode(data, task.file_name, (task.width, task.height))
