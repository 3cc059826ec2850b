"""Scaling images the way the detectors that come as plain ONNX files were trained: in numpy.

Bilinear with half-pixel centres and without antialiasing, which is OpenCV's INTER_LINEAR. Pillow's
bilinear filter averages when it shrinks, so it gives other pixels.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Placement:
    """How an image lies in the model's input: input pixel = image pixel * scale, from the top left.

    scale_x, scale_y: input pixels per image pixel.
    """

    scale_x: float
    scale_y: float

    def to_image(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Boxes [N, 4] in pixels of the input -> pixels of the image."""
        scale = np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y], np.float32)
        return boxes_xyxy / scale


def resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear: uint8 [H, W, C] -> uint8 [height, width, C]."""
    if image.shape[:2] == (height, width):
        return image
    top, bottom, down = _taps(image.shape[0], height)
    left, right, across = _taps(image.shape[1], width)
    # rows first, gathered before the conversion: only the rows that are needed become floats
    upper, lower = image[top].astype(np.float32), image[bottom].astype(np.float32)
    rows = upper + (lower - upper) * down[:, None, None]
    mixed = rows[:, left] + (rows[:, right] - rows[:, left]) * across[None, :, None]
    return np.rint(mixed).astype(np.uint8)


def stretch(image: np.ndarray, width: int, height: int) -> tuple[np.ndarray, Placement]:
    """Scale both sides independently to the size of the input."""
    placement = Placement(width / image.shape[1], height / image.shape[0])
    return resize(image, width, height), placement


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


def _taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every target pixel the two source pixels around it, and the weight of the second."""
    position = (np.arange(target) + 0.5) * (source / target) - 0.5
    position = np.clip(position, 0, source - 1)
    first = np.floor(position).astype(np.int64)
    second = np.minimum(first + 1, source - 1)
    return first, second, (position - first).astype(np.float32)
