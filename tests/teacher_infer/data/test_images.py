"""Every kind of image file: pixels as stored, or a status and a sentence."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from teacher_infer.data.images import ImageError, ImageTask, load_image

WIDTH, HEIGHT = 60, 40


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """Smooth, so that lossy formats stay close to it."""
    coarse = np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def load(folder: Path, data: bytes | None, name: str = "a.jpg", size=(WIDTH, HEIGHT)) -> np.ndarray:
    if data is not None:
        (folder / name).write_bytes(data)
    return load_image(ImageTask(1, name, *size, str(folder)))


def status(folder: Path, *args: object, **kwargs: object) -> tuple[str, str]:
    with pytest.raises(ImageError) as caught:
        load(folder, *args, **kwargs)  # type: ignore[arg-type]
    return caught.value.status, str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_formats_decode_to_rgb(tmp_path, photo, kind):
    pixels = load(tmp_path, encoded(photo, kind))
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    # palettes and compression change colours a little
    assert np.abs(pixels.astype(int) - np.asarray(photo)).mean() < 12


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "1", "RGBA", "LA"])
def test_colour_spaces_decode_to_rgb(tmp_path, photo, mode):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    expected = np.asarray(photo.convert(mode).convert("RGB")).astype(int)
    pixels = load(tmp_path, encoded(photo.convert(mode), kind))
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(pixels - expected).mean() < 6


def test_grayscale_jpeg_has_three_equal_channels(tmp_path, photo):
    pixels = load(tmp_path, encoded(photo.convert("L"), "JPEG"))
    assert (pixels[:, :, 0] == pixels[:, :, 1]).all()
    assert (pixels[:, :, 0] == pixels[:, :, 2]).all()


def test_sixteen_bits_keep_their_high_byte(tmp_path):
    deep = np.arange(WIDTH * HEIGHT, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 27
    pixels = load(tmp_path, encoded(Image.fromarray(deep), "PNG"))
    assert (pixels[:, :, 1] == deep >> 8).all()


def test_a_palette_with_transparency_decodes_quietly(tmp_path, photo):
    palette = photo.quantize(16)
    data = encoded(palette, "PNG", transparency=bytes(range(16)))
    assert load(tmp_path, data).shape == (HEIGHT, WIDTH, 3)


def test_exif_rotation_is_ignored_because_boxes_refer_to_pixels_as_stored(tmp_path, photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated = load(tmp_path, encoded(photo, "JPEG", exif=exif))
    assert (rotated == load(tmp_path, encoded(photo, "JPEG"))).all()
    assert rotated.shape == (HEIGHT, WIDTH, 3)


def test_one_pixel(tmp_path):
    data = encoded(Image.new("RGB", (1, 1), (9, 200, 30)), "PNG")
    assert load(tmp_path, data, size=(1, 1)).tolist() == [[[9, 200, 30]]]


def test_names_in_any_script_and_in_subfolders(tmp_path, photo):
    (tmp_path / "ordner").mkdir()
    assert load(tmp_path, encoded(photo, "JPEG"), "ordner/größe 写真 é.jpg").any()


@pytest.mark.slow
def test_the_pixels_are_those_of_torchvision(tmp_path, photo):
    torch = pytest.importorskip("torch")
    io_module = pytest.importorskip("torchvision.io")
    for mode in ("RGB", "L", "CMYK"):
        data = encoded(photo.convert(mode), "JPEG")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = io_module.decode_image(
                torch.frombuffer(bytearray(data), dtype=torch.uint8),
                mode=io_module.ImageReadMode.RGB,
            )
        assert (load(tmp_path, data) == theirs.permute(1, 2, 0).numpy()).all()


def test_a_missing_file(tmp_path):
    code, text = status(tmp_path, None)
    assert code == "missing_file"
    assert str(tmp_path / "a.jpg") in text


def test_a_folder_in_the_place_of_a_file(tmp_path):
    (tmp_path / "a.jpg").mkdir()
    assert status(tmp_path, None)[0] == "unreadable"


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_file(tmp_path, kind, share):
    noise = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    code, text = status(tmp_path, data[: int(len(data) * share)])
    assert code == "truncated"
    assert "a.jpg" in text


def test_an_empty_file(tmp_path):
    assert status(tmp_path, b"") == ("truncated", "a.jpg is empty")


def test_something_that_is_no_image(tmp_path):
    assert status(tmp_path, b"<html>404 not found</html>")[0] == "not_an_image"


def test_damage_inside_is_an_error_too(tmp_path, photo):
    data = bytearray(encoded(photo, "PNG"))
    middle = data.index(b"IDAT") + 10
    data[middle : middle + 20] = bytes(20)
    assert status(tmp_path, bytes(data))[0] in ("corrupt", "truncated")


def test_a_size_other_than_annotated(tmp_path, photo):
    with pytest.raises(ImageError, match="60x40 px, the annotations say 40x60") as caught:
        load(tmp_path, encoded(photo, "JPEG"), size=(HEIGHT, WIDTH))
    assert caught.value.status == "size_mismatch"
    assert caught.value.size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/hostname", "x/../../a.jpg", "c:\\a.jpg"])
def test_names_that_leave_the_folder(tmp_path, photo, name):
    folder = tmp_path / "images"
    folder.mkdir()
    (tmp_path / "a.jpg").write_bytes(encoded(photo, "JPEG"))
    assert status(folder, None, name)[0] == "unsafe_path"


def test_links_that_leave_the_folder(tmp_path, photo):
    folder = tmp_path / "images"
    folder.mkdir()
    (tmp_path / "secret.jpg").write_bytes(encoded(photo, "JPEG"))
    (folder / "a.jpg").symlink_to(tmp_path / "secret.jpg")
    assert status(folder, None)[0] == "unsafe_path"
