"""One image file -> pixels, in the frame its annotations use.

Pillow decodes everything, but JPEG photos where simplejpeg is installed: the same pixels in two
thirds of the time. torchvision's decoders give the same pixels (compared on COCO photos and on
every kind of file in the tests) at Pillow's speed, but they are deprecated since torchvision 0.29,
and a worker that runs an ONNX teacher would import torch for nothing else.

Annotations and boxes refer to the pixels *as stored*, so an EXIF orientation is not applied. A file
whose size disagrees with the annotations is an error rather than a surprise: its boxes would be in
another frame than the ground truth.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

# Ultralytics replaces PIL.Image.open, when it is imported, by one that may install packages
from PIL.Image import open as open_image

from box_store.errors import DataError
from box_store.jpeg import decode_photo
from box_store.places.image_files import image_path
from box_store.places.locations import Location, RemoteError, location

# what the column `status` of the store says when an image was not seen; "ok" is the store's own
UNSAFE_PATH = "unsafe_path"
MISSING = "missing_file"
UNREADABLE = "unreadable"
NOT_AN_IMAGE = "not_an_image"
TRUNCATED = "truncated"
CORRUPT = "corrupt"
SIZE_MISMATCH = "size_mismatch"


@dataclass(frozen=True, slots=True)
class ImageTask:
    """An image to label: what the annotations say of it, and the folder it lies in.

    Workers receive these and never pixels: a path is cheap to send, and the pixels are decoded
    where they are needed.
    """

    image_id: int
    file_name: str
    width: int
    height: int
    root: str


class ImageError(DataError):
    """An image that cannot be used.

    status: the code that the store records for it. size: width and height of the file in pixels, 0
    where it could not even be opened.
    """

    def __init__(self, status: str, message: str, size: tuple[int, int] = (0, 0)) -> None:
        super().__init__(message)
        self.status = status
        self.size = size


def find_image(task: ImageTask) -> Location:
    """Where the image should lie; ImageError when its name leads out of its folder."""
    try:
        return image_path(location(task.root), task.file_name)
    except DataError as error:
        raise ImageError(UNSAFE_PATH, str(error)) from error


def load_image(task: ImageTask) -> np.ndarray:
    """Decode an image to uint8 RGB of shape [height, width, 3], as stored on disk.

    Grayscale, palette, CMYK, 16-bit and transparent images are converted; the first frame of an
    animation is taken.

    Raises:
        ImageError: the file name leaves the folder, there is no such file, it cannot be read, it is
            no image, it ends too early, or its size is not the one in the annotations.
        RemoteError: the server of a URL fails, which says nothing of the image.
    """
    path = find_image(task)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(MISSING, f"no file {path}") from error
    except RemoteError:
        raise
    except OSError as error:
        raise ImageError(UNREADABLE, f"cannot read {path}: {error.strerror}") from error
    return decode(data, task)


def decode(data: bytes, task: ImageTask) -> np.ndarray:
    """The pixels of an encoded image, uint8 RGB [height, width, 3]. Errors as in `load_image`."""
    if not data:
        raise ImageError(TRUNCATED, f"{task.file_name} is empty")
    try:
        # reads the header alone, so a wrong size costs no decoding
        image = open_image(io.BytesIO(data))
    except UnidentifiedImageError as error:
        message = f"{task.file_name} is not in an image format that Pillow knows"
        raise ImageError(NOT_AN_IMAGE, message) from error
    except Exception as error:
        raise _broken(task, error) from error
    with image:
        if image.size != (task.width, task.height):
            raise ImageError(
                SIZE_MISMATCH,
                f"{task.file_name} is {image.width}x{image.height} px, the annotations say "
                f"{task.width}x{task.height}: boxes would be in another frame",
                image.size,
            )
        try:
            pixels = decode_photo(data, image)
            return _to_rgb(image) if pixels is None else pixels
        except Exception as error:
            raise _broken(task, error, image.size) from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):
        # 16 bits of gray: keep the high byte, as libpng does for colour; Pillow would clip instead
        high = (np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(high[:, :, None], 3, axis=2)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    # a copy: torch warns of arrays that cannot be written to, which is what Pillow lends
    return np.array(image.convert("RGB"))


def _broken(task: ImageTask, error: Exception, size: tuple[int, int] = (0, 0)) -> ImageError:
    # every codec words it differently: "image file is truncated", "Truncated File Read"
    status = TRUNCATED if "truncated" in str(error).lower() else CORRUPT
    return ImageError(status, f"{task.file_name} cannot be decoded: {error}", size)
