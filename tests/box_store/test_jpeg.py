"""JPEG photos decoded without Pillow have Pillow's pixels; anything unusual is left to it."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from box_store.jpeg import decode_photo

pytest.importorskip("simplejpeg", reason="needs the extra `jpeg`")

PHOTOS = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "coco-mini"


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Smooth in parts, noise in others."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 7 + 1, width // 7 + 1, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noise = rng.integers(-20, 21, smooth.shape)
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def both(data: bytes):
    with Image.open(io.BytesIO(data)) as image:
        found = decode_photo(data, image)
        return found, np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("quality", [30, 90])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [(64, 48), (33, 17), (1, 1), (8, 300)])
def test_pixels_are_pillows(quality, subsampling, progressive, size):
    options = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
    found, expected = both(encoded(picture(*size), **options))
    assert found is not None
    np.testing.assert_array_equal(found, expected)


def test_gray_is_three_times_gray():
    found, expected = both(encoded(picture(40, 30).convert("L")))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(not PHOTOS.exists(), reason="needs ../shared/data/coco-mini")
def test_pixels_of_real_photos_are_pillows():
    photos = sorted(PHOTOS.rglob("*.jpg"))[::8]
    assert len(photos) > 10
    for photo in photos:
        found, expected = both(photo.read_bytes())
        np.testing.assert_array_equal(found, expected, err_msg=photo.name)


def test_what_is_no_plain_photo_is_left_to_pillow():
    cmyk = encoded(picture(20, 20).convert("CMYK"))
    png = io.BytesIO()
    picture(20, 20).save(png, "PNG")
    for data in (cmyk, png.getvalue()):
        assert both(data)[0] is None


def test_damaged_photos_are_left_to_pillow():
    whole = encoded(picture(64, 64))
    for data in (whole[: len(whole) // 2], whole[:-40]):
        with Image.open(io.BytesIO(data)) as image:
            assert decode_photo(data, image) is None
