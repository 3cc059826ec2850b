"""One image file to pixels, in the frame its annotations use: what teachers and students both see.

Pillow decodes everything, but JPEG photos where simplejpeg is installed: the same pixels in two
thirds of the time. torchvision's decoders give the same pixels (compared on COCO photos and on
every kind of file in the tests) at Pillow's speed, but they are deprecated since torchvision 0.29,
and a worker that runs an ONNX teacher would import torch for nothing else.

Annotations and boxes refer to the pixels *as stored*, so an orientation tag is not applied, not
even a TIFF's, which Pillow turns by itself when it loads. A file whose size disagrees with the
annotations is an error rather than a surprise: its boxes would be in another frame.
"""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

# Ultralytics replaces PIL.Image.open, when it is imported, by one that may install packages
from PIL.Image import open as open_image

from box_store.errors import DataError
from box_store.jpeg import decode_photo
from box_store.places.image_files import image_path
from box_store.places.locations import Location, RemoteError

# what the column `status` of the store says when an image was not seen; "ok" is the store's own
UNSAFE_PATH = "unsafe_path"
MISSING = "missing_file"
UNREADABLE = "unreadable"
NOT_AN_IMAGE = "not_an_image"
TRUNCATED = "truncated"
CORRUPT = "corrupt"
SIZE_MISMATCH = "size_mismatch"
TOO_LARGE = "too_large"
UNSUPPORTED = "unsupported_pixels"

# what is never decoded, whatever the annotations say: 3 GB of RGB
MAX_PIXELS = 10**9

_ORIENTATION = 0x0112
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_TURNED = (5, 6, 7, 8)

# Pillow's limit is a global of its module: held while it is lifted, one huge picture at a time
_limit = threading.RLock()


class ImageError(DataError):
    """An image that cannot be used.

    status: the code that the store records for it. size: width and height of the file in pixels, 0
    where it could not even be opened.
    """

    def __init__(self, status: str, message: str, size: tuple[int, int] = (0, 0)) -> None:
        super().__init__(message)
        self.status = status
        self.size = size

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str, tuple[int, int]]]:
        return type(self), (self.status, str(self), self.size)


def find_image(root: Location, file_name: str) -> Location:
    """Where an image should lie. Raises ImageError for a name that leads out of its folder."""
    try:
        return image_path(root, file_name)
    except DataError as error:
        raise ImageError(UNSAFE_PATH, str(error)) from error


def read_pixels(
    path: Location, size: tuple[int, int] | None = None, divisor: int = 1
) -> NDArray[np.uint8]:
    """Decode an image file to uint8 RGB [height, width, 3], as stored on disk.

    Grayscale, palette, CMYK, 16-bit and transparent images are converted; the first frame of an
    animation is taken. Float pixels in 0..1 are stretched to 0..255. size: (width, height) that the
    file must have; only with it are pictures decoded that are larger than Pillow's limit. divisor:
    1, 2, 4 or 8: decode JPEG photos at that part of their size, sides rounded up, which saves most
    of the work; other files come whole, so that the shape says which it was.

    Raises:
        ImageError: there is no such file, it cannot be read, it is no image, it ends too early, its
            size is not the one in the annotations, it is too large, or nobody can say which of its
            values is white.
        RemoteError: the server of a URL fails, which says nothing of the image.
    """
    return decode(read_file(path), str(path), size, divisor)


def read_upright(path: Location) -> NDArray[np.uint8]:
    """`read_pixels`, turned as the file's orientation tag asks viewers to: for pictures without
    annotations, whose frame would have to be kept.
    """
    data = read_file(path)
    pixels = decode(data, str(path))
    with open_image(io.BytesIO(data)) as image:
        orientation = _orientation(image)
    if orientation in _TURNED:
        pixels = pixels.swapaxes(0, 1)
    # of what is then seen: left and right exchanged, top and bottom exchanged
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def read_file(path: Location) -> bytes:
    """The encoded image. Raises ImageError, and RemoteError where a server fails."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(MISSING, f"no image file {path}{_spelling(path)}") from error
    except RemoteError:
        raise
    except OSError as error:
        raise ImageError(UNREADABLE, f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        # half a surrogate pair, a byte 0: no file system has such a name
        raise ImageError(MISSING, f"no image file can be called {str(path)!a}: {error}") from error


def decode(
    data: bytes, name: str, size: tuple[int, int] | None = None, divisor: int = 1
) -> NDArray[np.uint8]:
    """The pixels of an encoded image, as `read_pixels` has them; `name` is for messages."""
    if not data:
        raise ImageError(TRUNCATED, f"{name} is empty")
    try:
        return _decode(data, name, size, divisor)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        if size is None:
            raise ImageError(
                TOO_LARGE,
                f"{name} is larger than Pillow decodes unasked ({error}); with its width and "
                "height in an annotation file it is read",
            ) from error
    with without_limit():
        return _decode(data, name, size, divisor)


def _decode(
    data: bytes, name: str, size: tuple[int, int] | None, divisor: int
) -> NDArray[np.uint8]:
    try:
        # reads the header alone, so a wrong size costs no decoding
        image = open_image(io.BytesIO(data))
    except UnidentifiedImageError as error:
        message = f"{name} is not in an image format that Pillow knows"
        raise ImageError(NOT_AN_IMAGE, message) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise
    except Exception as error:
        # decoders raise anything from OSError to SyntaxError and struct.error on damaged files
        raise _broken(name, error) from error
    with image:
        try:
            stored = stored_size(image)
        except Exception as error:
            raise _broken(name, error) from error
        if size is not None and stored != size:
            raise _mismatch(image, name, stored, size)
        if stored[0] * stored[1] > MAX_PIXELS:
            raise ImageError(
                TOO_LARGE,
                f"{name} has {stored[0] * stored[1] / 1e6:.0f} megapixels, at most "
                f"{MAX_PIXELS / 1e6:.0f} are decoded: cut it into tiles",
                stored,
            )
        try:
            photo = decode_photo(data, image, divisor)
            return _rgb(_as_stored(image), name) if photo is None else photo
        except (ImageError, Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise
        except MemoryError as error:
            raise ImageError(
                TOO_LARGE, f"{name} ({stored[0]} x {stored[1]} px) does not fit into memory", stored
            ) from error
        except Exception as error:
            raise _broken(name, error, stored) from error


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an opened image in pixels as stored, whatever its orientation tag."""
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        return int(tags[_TIFF_WIDTH]), int(tags[_TIFF_HEIGHT])
    return image.size


def turned_size(image: Image.Image) -> tuple[int, int]:
    """Width and height that the orientation tag asks viewers to show."""
    width, height = stored_size(image)
    return (height, width) if _orientation(image) in _TURNED else (width, height)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        # EXIF is free-form, and a broken one harms no pixel
        return 1


def _as_stored(image: Image.Image) -> Image.Image:
    """The image, loaded without being turned."""
    if image.format != "TIFF" or _orientation(image) == 1:
        image.load()
        return image
    # Pillow asks this cached table when it has loaded a TIFF
    image.getexif()[_ORIENTATION] = 1
    image.load()
    # the size that Pillow noted is of the turned image; a copy takes that of the pixels
    return image.copy()


def _rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    if image.mode == "F":
        return _gray(_from_float(np.asarray(image), name))
    if image.mode.startswith("I"):
        # 16 bits of gray come as I;16, but as I from PNG and PGM of some versions
        if image.mode == "I" and (image.format or "") not in ("PNG", "PPM", ""):
            raise _unsupported(
                name, "whole numbers of 32 bits (or with a sign)", np.asarray(image), image.size
            )
        return _gray(_high_byte(np.asarray(image), name))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode != "RGB":
        try:
            image = image.convert("RGB")
        except ValueError as error:
            raise ImageError(
                UNSUPPORTED,
                f"{name} has pixels of the kind {image.mode}, which cannot be made RGB: {error}",
                image.size,
            ) from error
    # a copy: torch warns of arrays that cannot be written to, which is what Pillow lends
    return np.array(image)


def _gray(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(values[:, :, None], 3, axis=2)


def _high_byte(values: NDArray[np.integer], name: str) -> NDArray[np.uint8]:
    """16 bits of gray to 8, as libpng does for colour; Pillow would cut all above 255 instead."""
    if 0 < values.max(initial=0) < 256:
        raise _unsupported(name, "16 bits a pixel", values, values.shape[::-1])
    return (values >> 8).clip(0, 255).astype(np.uint8)


def _from_float(values: NDArray[np.floating], name: str) -> NDArray[np.uint8]:
    with np.errstate(invalid="ignore"):
        inside = bool((values >= 0).all() and (values <= 1).all())
    if not inside:
        raise _unsupported(name, "float pixels", values, values.shape[::-1])
    return np.rint(values * 255).astype(np.uint8)


def _unsupported(
    name: str, kind: str, values: NDArray[np.generic], size: tuple[int, ...]
) -> ImageError:
    low, high = values.min(initial=0), values.max(initial=0)
    return ImageError(
        UNSUPPORTED,
        f"{name} has {kind}, from {low:g} to {high:g}: nothing says which value is white. Float "
        "pixels are read from 0 to 1, 16-bit ones from 0 to 65535: save it so, or with 8 bits",
        (int(size[0]), int(size[1])),
    )


def _mismatch(
    image: Image.Image, name: str, stored: tuple[int, int], size: tuple[int, int]
) -> ImageError:
    message = (
        f"{name} is {stored[0]}x{stored[1]} px, the annotations say {size[0]}x{size[1]}: boxes "
        "would be in another frame"
    )
    if turned_size(image) == size:
        message += (
            ". The file's orientation tag turns it to that size, so the annotations seem to be in "
            "the turned frame: apply the tag to the files (`exiftran -ai`, `mogrify -auto-orient`)"
        )
    return ImageError(SIZE_MISMATCH, message, stored)


def _broken(name: str, error: Exception, size: tuple[int, int] = (0, 0)) -> ImageError:
    # every codec words it differently: "image file is truncated", "Truncated File Read"
    status = TRUNCATED if "truncated" in str(error).lower() else CORRUPT
    return ImageError(status, f"{name} cannot be decoded: {error}", size)


def _spelling(path: Location) -> str:
    """What may be wrong with a name that no file has; begins with a space."""
    if "\\" in path.name:
        return " (backslashes: was the annotation file written on Windows?)"
    if "%" in path.name:
        return " (is the name percent-encoded, as URLs are?)"
    return ""


@contextmanager
def without_limit() -> Iterator[None]:
    """Let Pillow open pictures of any size, in this thread and, for that time, in others."""
    with _limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before
