"""JPEG photos decoded without Pillow have Pillow's pixels; anything unusual is left to it."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from box_store import jpeg
from box_store.jpeg import DIVISORS, decode_photo, largest_divisor
from box_store.pixels import ImageError, decode

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


@pytest.mark.parametrize("divisor", [2, 4, 8])
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("size", [(64, 48), (37, 121), (9, 8)])
def test_scaled_pixels_are_those_of_pillows_draft(divisor, subsampling, size, monkeypatch):
    for image in (picture(*size), picture(*size).convert("L")):
        data = encoded(image, subsampling=subsampling)
        fast = decode(data, "photo", divisor=divisor)
        with monkeypatch.context() as without:
            without.setattr(jpeg, "_simplejpeg", lambda: None)
            slow = decode(data, "photo", divisor=divisor)
        assert fast.shape == (-(-size[0] // divisor), -(-size[1] // divisor), 3)
        np.testing.assert_array_equal(fast, slow)


@pytest.mark.parametrize("divisor", [2, 4, 8])
def test_scaled_pixels_are_the_means_of_what_they_stand_for(divisor):
    """Of smooth pictures, to what rounding and the file's own losses leave."""
    coarse = np.random.default_rng(3).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((320, 256), Image.Resampling.BICUBIC)
    whole = decode(encoded(image, quality=98, subsampling=0), "photo").astype(float)
    means = whole.reshape(256 // divisor, divisor, 320 // divisor, divisor, 3).mean((1, 3))
    scaled = decode(encoded(image, quality=98, subsampling=0), "photo", divisor=divisor)
    assert np.abs(scaled - means).max() < 4
    assert np.abs(scaled - means).mean() < 0.6


@pytest.mark.parametrize("kind", ["PNG", "CMYK", "cut"])
def test_what_is_no_plain_photo_comes_whole_or_fails_as_ever(kind):
    if kind == "PNG":
        file = io.BytesIO()
        picture(40, 24).save(file, "PNG")
        assert decode(file.getvalue(), "a.png", divisor=4).shape == (40, 24, 3)
    elif kind == "CMYK":
        data = encoded(picture(40, 24).convert("CMYK"))
        assert decode(data, "a.jpg", divisor=4).shape == (40, 24, 3)
    else:
        with pytest.raises(ImageError, match="truncated"):
            decode(encoded(picture(64, 64))[:900], "a.jpg", divisor=4)


def test_the_size_is_checked_before_anything_is_divided():
    with pytest.raises(ImageError, match="the annotations say 20x40"):
        decode(encoded(picture(40, 24)), "a.jpg", (20, 40), 4)


@given(
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    st.tuples(st.integers(1, 900), st.integers(1, 900)),
)
def test_a_divisor_leaves_sides_long_enough(size, at_least):
    divisor = largest_divisor(size, at_least)
    assert divisor in DIVISORS
    if divisor > 1:
        assert all(side // divisor >= least for side, least in zip(size, at_least, strict=True))
    if divisor < 8:
        doubled = [side // (2 * divisor) for side in size]
        assert any(side < least for side, least in zip(doubled, at_least, strict=True))
