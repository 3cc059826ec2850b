"""Scaling images the way the detectors that come as plain ONNX files were trained.

Bilinear with half-pixel centres and without antialiasing, in OpenCV's fixed-point arithmetic: its
INTER_LINEAR to the bit, in numpy, so that it is not needed. Where OpenCV is installed and gives
the same bits it does the work, some fifteen times faster. Pillow's bilinear filter averages when it
shrinks, so it gives other pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Placement:
    """How an image lies in the model's input: input pixel = image pixel * scale + (left, top).

    scale_x, scale_y: input pixels per image pixel. left, top: input pixels.
    """

    scale_x: float
    scale_y: float
    left: int = 0
    top: int = 0

    def to_image(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Boxes [N, 4] in pixels of the input -> pixels of the image."""
        scale = np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y], np.float32)
        offset = np.array([self.left, self.top, self.left, self.top], np.float32)
        return (boxes_xyxy - offset) / scale


def resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear: uint8 [H, W, C] -> uint8 [height, width, C], to the bit what OpenCV gives."""
    if image.shape[:2] == (height, width):
        return image
    return (_opencv() or resize_in_numpy)(image, width, height)


Resize = Callable[[np.ndarray, int, int], np.ndarray]


@lru_cache(maxsize=1)
def _opencv() -> Resize | None:
    """OpenCV's, where it is installed and gives the same bits as the code below.

    It is asked in every process: a version whose bits differ must not change a teacher's boxes.
    """
    try:
        import cv2
    except ImportError:
        return None

    def by_opencv(image: np.ndarray, width: int, height: int) -> np.ndarray:
        found = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        # a single channel's axis is dropped
        return np.asarray(found).reshape(height, width, -1)

    probe = np.random.default_rng(0).integers(0, 256, (46, 62, 3), np.uint8)
    for size in ((31, 23), (100, 77), (40, 17)):
        if not np.array_equal(by_opencv(probe, *size), resize_in_numpy(probe, *size)):
            return None
    return by_opencv


def resize_in_numpy(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """`resize` without OpenCV."""
    (top, bottom), down = _taps(image.shape[0], height)
    across = _taps(image.shape[1], width)
    upper, lower = _widths(image[top], *across), _widths(image[bottom], *across)
    # OpenCV drops bits twice, so that products fit into the registers that it uses
    mixed = (upper * _fixed(1 - down)[:, None, None] >> 16) + (
        lower * _fixed(down)[:, None, None] >> 16
    )
    return (mixed + 2 >> 2).astype(np.uint8)


def _widths(rows: np.ndarray, columns: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Rows scaled to another width: int32, in 128ths of a grey level."""
    # past either end there is one pixel to take, and nothing to mix
    inside = np.where(columns[0] == columns[1], np.float32(0), across)
    left = rows[:, columns[0]] * _fixed(1 - inside)[None, :, None]
    return left + rows[:, columns[1]] * _fixed(inside)[None, :, None] >> 4


def _fixed(weight: np.ndarray) -> np.ndarray:
    """Weights 0..1 with 11 bits, as OpenCV keeps them (imgproc/src/resize.cpp)."""
    return np.rint(weight * np.float32(2048)).astype(np.int32)


def stretch(image: np.ndarray, width: int, height: int) -> tuple[np.ndarray, Placement]:
    """Scale both sides independently to the size of the input."""
    placement = Placement(width / image.shape[1], height / image.shape[0])
    return resize(image, width, height), placement


def smooth(image: np.ndarray, width: int, height: int) -> tuple[np.ndarray, Placement]:
    """As `stretch`, by Pillow's bilinear filter, which averages where it shrinks (antialiasing)."""
    placement = Placement(width / image.shape[1], height / image.shape[0])
    scaled = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(scaled), placement


def letterbox(
    image: np.ndarray, width: int, height: int, pad: int = 114
) -> tuple[np.ndarray, Placement]:
    """Scale to fit inside, place at the top left, fill the rest with `pad` (as YOLOX does)."""
    scale = min(width / image.shape[1], height / image.shape[0])
    inner_width = max(1, int(image.shape[1] * scale))
    inner_height = max(1, int(image.shape[0] * scale))
    canvas = np.full((height, width, image.shape[2]), pad, np.uint8)
    canvas[:inner_height, :inner_width] = resize(image, inner_width, inner_height)
    return canvas, Placement(scale, scale)


def centred(
    image: np.ndarray, width: int, height: int, pad: int = 114
) -> tuple[np.ndarray, Placement]:
    """Scale to fit inside, place in the middle, fill the rest with `pad` (as YOLOv5 and its heirs).

    Where what is left can't be halved, the smaller half is on the left and at the top.
    """
    scale = min(width / image.shape[1], height / image.shape[0])
    inner_width, inner_height = (max(1, round(side * scale)) for side in image.shape[1::-1])
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    canvas = np.full((height, width, image.shape[2]), pad, np.uint8)
    inside = resize(image, inner_width, inner_height)
    canvas[top : top + inner_height, left : left + inner_width] = inside
    # of the sides as they were rounded
    across, down = inner_width / image.shape[1], inner_height / image.shape[0]
    return canvas, Placement(across, down, left, top)


def _taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """For every target pixel the two source pixels around it [2, target], and the weight of the
    second."""
    position = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int64)
    return np.clip([first, first + 1], 0, source - 1), position - first.astype(np.float32)
