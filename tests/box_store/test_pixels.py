"""Teachers and students see the same pixels, as stored; what nobody can tell is never black."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from box_store import pixels
from box_store.pixels import ImageError, decode, read_pixels
from student_train.data.images import read_image
from teacher_infer.data.images import ImageTask, load_image

WIDTH, HEIGHT = 64, 48
RAMP = np.linspace(25, 226, WIDTH * HEIGHT, dtype=np.float32).reshape(HEIGHT, WIDTH)


def both(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    """What a teacher sees, which a student must see too."""
    seen = load_image(ImageTask(1, path.name, *size, str(path.parent)))
    assert (read_image(path, size).permute(1, 2, 0).numpy() == seen).all()
    return seen


def refused(path: Path, size: tuple[int, int] | None = (WIDTH, HEIGHT)) -> ImageError:
    with pytest.raises(ImageError) as caught:
        read_pixels(path, size)
    return caught.value


def test_float_pixels_from_0_to_1_are_stretched(tmp_path: Path) -> None:
    Image.fromarray(RAMP / 255).save(tmp_path / "a.tif")
    assert (both(tmp_path / "a.tif")[:, :, 1] == np.rint(RAMP)).all()


@pytest.mark.parametrize(
    "values",
    [RAMP, RAMP / 200, RAMP - 100, np.where(RAMP > 100, np.nan, 0.5), RAMP.astype(np.int32)],
    ids=["0..255", "a little above 1", "below 0", "NaN", "32-bit whole numbers"],
)
def test_other_float_and_32_bit_pixels_are_refused_never_black(
    tmp_path: Path, values: np.ndarray
) -> None:
    array = values if values.dtype == np.int32 else values.astype(np.float32)
    Image.fromarray(array).save(tmp_path / "a.tif")
    error = refused(tmp_path / "a.tif")
    assert error.status == "unsupported_pixels"
    assert "nothing says which value is white" in str(error)
    assert error.size == (WIDTH, HEIGHT)


def test_12_bits_in_16_are_dark_and_8_in_16_are_refused(tmp_path: Path) -> None:
    Image.fromarray(RAMP.astype(np.uint16) * 16).save(tmp_path / "twelve.png")
    assert (both(tmp_path / "twelve.png")[:, :, 0] == (RAMP.astype(np.uint16) * 16) >> 8).all()
    Image.fromarray(RAMP.astype(np.uint16)).save(tmp_path / "eight.png")
    assert refused(tmp_path / "eight.png").status == "unsupported_pixels"
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16)).save(tmp_path / "night.png")
    assert not both(tmp_path / "night.png").any()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", ["raw", "tiff_deflate"])
def test_a_tiff_is_read_as_stored_whatever_its_orientation(
    tmp_path: Path, orientation: int, compression: str
) -> None:
    stored = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    path = tmp_path / "a.tif"
    Image.fromarray(stored).save(path, tiffinfo={274: orientation}, compression=compression)
    assert (both(path) == stored).all()
    if orientation >= 5:
        error = refused(path, (HEIGHT, WIDTH))
        assert error.status == "size_mismatch"
        assert "the turned frame" in str(error)


def test_a_turned_sixteen_bit_tiff(tmp_path: Path) -> None:
    deep = (RAMP * 250).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.tif", tiffinfo={274: 6})
    assert (both(tmp_path / "a.tif")[:, :, 0] == deep >> 8).all()


@pytest.mark.parametrize(("orientation", "turned"), [(6, True), (8, True), (3, False), (1, False)])
def test_annotations_in_the_frame_that_exif_turns_to_are_recognised(
    tmp_path: Path, orientation: int, turned: bool
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.jpg", exif=exif)
    error = refused(tmp_path / "a.jpg", (HEIGHT, WIDTH))
    assert error.status == "size_mismatch"
    assert ("orientation tag" in str(error)) == turned


def large_png(width: int, height: int) -> bytes:
    """White, a bit a pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        code = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + code

    row, packer = b"\0" + b"\xff" * (width // 8), zlib.compressobj(1)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def test_pictures_beyond_pillows_limit_are_read_if_the_annotations_know_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    data = large_png(64, 48)
    assert decode(data, "a.png", (64, 48)).min() == 255
    assert Image.MAX_IMAGE_PIXELS == 1000
    with pytest.raises(ImageError, match="larger than Pillow decodes unasked") as caught:
        decode(data, "a.png")
    assert caught.value.status == "too_large"
    with pytest.raises(ImageError, match="the annotations say 48x64") as caught:
        decode(data, "a.png", (48, 64))
    assert caught.value.status == "size_mismatch"


def test_no_header_makes_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "MAX_PIXELS", 1000)
    with pytest.raises(ImageError, match="cut it into tiles") as caught:
        decode(large_png(64, 48), "a.png", (64, 48))
    assert caught.value.status == "too_large"


@pytest.mark.slow
def test_a_200_megapixel_photo(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(large_png(16320, 12240))
    seen = load_image(ImageTask(1, "a.png", 16320, 12240, str(tmp_path)))
    assert seen.shape == (12240, 16320, 3)
    assert seen[::1000, ::1000].min() == 255


@pytest.mark.parametrize("mode", ["LAB", "HSV", "YCbCr", "CMYK", "LA", "PA"])
def test_every_kind_of_pixels_is_rgb_or_a_sentence(tmp_path: Path, mode: str) -> None:
    photo = Image.new("RGB", (WIDTH, HEIGHT), (200, 40, 90))
    image = Image.new("LAB", (WIDTH, HEIGHT)) if mode == "LAB" else photo.convert(mode)
    try:
        image.save(tmp_path / "a.tif")
    except OSError:
        pytest.skip(f"Pillow writes no TIFF of {mode}")
    assert both(tmp_path / "a.tif").shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("name", [chr(0xD83D) + ".png", "x" * 300, "b\0.png", "a\\b.png"])
def test_names_that_no_file_has_cost_one_image(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError) as caught:
        load_image(ImageTask(1, name, WIDTH, HEIGHT, str(tmp_path)))
    assert caught.value.status in ("missing_file", "unsafe_path", "unreadable")
    str(caught.value).encode("ascii", "backslashreplace")


def test_a_name_in_other_bytes_is_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (1, 2, 3)).save(buffer, "PNG")
    name = json.loads('"\\udcff\\udcfe.png"')
    try:
        (tmp_path / name).write_bytes(buffer.getvalue())
    except OSError:
        pytest.skip("the file system takes UTF-8 names alone")
    assert both(tmp_path / name)[0, 0].tolist() == [1, 2, 3]
    buffer.close()


def test_links_that_go_round_in_a_circle_cost_one_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(ImageError):
        load_image(ImageTask(1, "a.png", WIDTH, HEIGHT, str(tmp_path)))


def test_windows_names_and_urls_are_seen_for_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="written on Windows"):
        load_image(ImageTask(1, "train\\a.png", WIDTH, HEIGHT, str(tmp_path)))
    with pytest.raises(ImageError, match="percent-encoded"):
        load_image(ImageTask(1, "a%20b.png", WIDTH, HEIGHT, str(tmp_path)))
