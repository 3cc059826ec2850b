"""Every kind of file that turns up in a data set becomes RGB, or a sentence."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from student_train.data.images import ImageError, read_image


def picture(width: int = 40, height: int = 24) -> Image.Image:
    """Red at the left, blue at the right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[:, width // 2 :, 2] = 255
    return Image.fromarray(pixels)


def check_picture(pixels: torch.Tensor, width: int = 40, height: int = 24) -> None:
    assert pixels.shape == (3, height, width)
    assert pixels.dtype == torch.uint8
    left, right = pixels[:, height // 2, 4], pixels[:, height // 2, -5]
    assert left[0] > 200
    assert left[2] < 60
    assert right[2] > 200
    assert right[0] < 60


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "übung 図.jpg"])
def test_colour(tmp_path: Path, name: str) -> None:
    picture().save(tmp_path / name)
    check_picture(read_image(tmp_path / name, (40, 24)))


def test_cmyk(tmp_path: Path) -> None:
    picture().convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    check_picture(read_image(tmp_path / "a.jpg"))


def test_palette_and_transparency(tmp_path: Path) -> None:
    picture().quantize(8).save(tmp_path / "palette.png", transparency=0)
    check_picture(read_image(tmp_path / "palette.png"))
    picture().convert("RGBA").save(tmp_path / "rgba.png")
    check_picture(read_image(tmp_path / "rgba.png"))


def test_gray(tmp_path: Path) -> None:
    gray = Image.fromarray(np.full((24, 40), 77, np.uint8))
    gray.save(tmp_path / "gray.jpg")
    deep = Image.fromarray(np.full((24, 40), 77 * 256, np.uint16))
    deep.save(tmp_path / "deep.png")
    for name in ("gray.jpg", "deep.png"):
        pixels = read_image(tmp_path / name)
        assert pixels.shape == (3, 24, 40)
        assert (pixels.int() - 77).abs().max() <= 1


def test_exif_rotation_is_not_applied(tmp_path: Path) -> None:
    image = picture()
    exif = image.getexif()
    exif[0x0112] = 6  # orientation: to be turned by a quarter when shown
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    check_picture(read_image(tmp_path / "a.jpg", (40, 24)))


def test_one_pixel(tmp_path: Path) -> None:
    Image.fromarray(np.full((1, 1, 3), 9, np.uint8)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", (1, 1)).flatten().tolist() == [9, 9, 9]


def jpeg() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (jpeg()[: len(jpeg()) // 2], "cannot be decoded"),
        (jpeg()[:20], "a.jpg"),
        (b"", "is empty"),
        (b"<html>not found</html>", "not in an image format that Pillow knows"),
    ],
)
def test_damaged(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(ImageError, match=words):
        read_image(tmp_path / "a.jpg")


def test_missing_and_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no image file .*a\.jpg"):
        read_image(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").mkdir()
    with pytest.raises(ImageError, match=r"cannot read .*b\.jpg"):
        read_image(tmp_path / "b.jpg")


def test_other_size_than_annotated(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="is 40x24 px, the annotations say 24x40"):
        read_image(tmp_path / "a.png", (24, 40))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_photo_is_turned_as_its_exif_says_only_when_asked(tmp_path: Path, orientation: int):
    turns = {
        1: None,
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = picture() if turns is None else picture().transpose(turns)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "phone.jpg", exif=exif, quality=95)
    check_picture(read_image(tmp_path / "phone.jpg", oriented=True))
    plain = read_image(tmp_path / "phone.jpg")
    assert plain.shape == (3, stored.height, stored.width)
