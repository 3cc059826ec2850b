"""Scaling for detectors that come as ONNX files: `teacher_infer.adapters.resize`."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from teacher_infer.adapters import resize as module
from teacher_infer.adapters.resize import letterbox, resize_in_numpy, stretch

SIDE = st.integers(1, 40)


def picture(height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(height * 100 + width)
    return random.integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=40, deadline=None)
@given(height=SIDE, width=SIDE, new_height=SIDE, new_width=SIDE)
def test_it_is_bilinear_with_half_pixel_centres_and_no_antialiasing(
    height: int, width: int, new_height: int, new_width: int
) -> None:
    image = picture(height, width)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(image).permute(2, 0, 1)[None].float(),
        size=(new_height, new_width),
        mode="bilinear",
        align_corners=False,
        antialias=False,
    )
    found = resize_in_numpy(image, new_width, new_height)
    difference = found.transpose(2, 0, 1).astype(float) - expected[0].numpy()
    # rounded, and with weights of 11 bits
    assert np.abs(difference).max() < 1


@pytest.mark.parametrize("to", [(41, 41), (352, 200), (3, 200), (64, 47), (128, 96), (1, 1)])
@pytest.mark.parametrize("source", [(48, 64), (37, 101), (240, 320), (1, 7)])
def test_it_is_opencvs_to_the_bit(source: tuple[int, int], to: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    image = picture(*source)
    expected = cv2.resize(image, to, interpolation=cv2.INTER_LINEAR)
    assert (resize_in_numpy(image, *to) == expected).all()


SIZE = st.tuples(st.integers(1, 90), st.integers(1, 90))


@settings(max_examples=150, deadline=None)
@given(source=SIZE, to=SIZE, halved=st.booleans(), channels=st.sampled_from([1, 3]))
def test_opencv_and_numpy_give_the_same_bits(source, to, halved, channels) -> None:
    pytest.importorskip("cv2")
    if halved:
        # where OpenCV takes another path
        source = (2 * to[0], 2 * to[1])
    image = np.random.default_rng(source).integers(0, 256, (*source, channels), dtype=np.uint8)
    by_opencv = module._opencv()
    assert by_opencv is not None
    height, width = to
    np.testing.assert_array_equal(
        by_opencv(image, width, height), resize_in_numpy(image, width, height)
    )


def test_an_opencv_of_other_bits_is_not_used(monkeypatch) -> None:
    cv2 = pytest.importorskip("cv2")
    monkeypatch.setattr(
        cv2, "resize", lambda image, size, interpolation: np.zeros((*size[::-1], 3))
    )
    assert module._opencv.__wrapped__() is None


@settings(max_examples=30, deadline=None)
@given(height=SIDE, width=SIDE)
def test_a_box_placed_in_the_input_comes_back(height: int, width: int) -> None:
    image = picture(height, width)
    whole = np.array([[0, 0, width, height]], np.float32)
    _, stretched = stretch(image, 32, 24)
    assert stretched.to_image(np.array([[0, 0, 32, 24]], np.float32)) == pytest.approx(whole)
    _, boxed = letterbox(image, 32, 24)
    inside = whole * np.array([boxed.scale_x, boxed.scale_y] * 2)
    assert inside.max() <= 32 + 1e-4
    assert boxed.to_image(inside) == pytest.approx(whole)


def test_a_letterbox_keeps_the_ratio_and_fills_with_grey() -> None:
    image = np.full((10, 20, 3), 200, np.uint8)
    canvas, placement = letterbox(image, 40, 40)
    assert (placement.scale_x, placement.scale_y) == (2, 2)
    assert (canvas[:20] == 200).all()
    assert (canvas[20:] == 114).all()


def test_one_pixel_fills_the_input() -> None:
    canvas, _ = letterbox(np.full((1, 1, 3), 9, np.uint8), 32, 32)
    assert (canvas == 9).all()
