"""Pictures of detections."""

import colorsys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.utils import draw_bounding_boxes

from box_store.boxes import Boxes
from student_train.prediction.overwriting import MARK


def draw_boxes(image: np.ndarray, boxes: Boxes, names: tuple[str, ...]) -> np.ndarray:
    """A copy of `image` ([H, W, 3], uint8) with boxes, names and scores; one colour a class."""
    if not len(boxes):
        return image.copy()
    pixels = torch.tensor(image).permute(2, 0, 1)
    # worst first, so that the best lie on top
    boxes = boxes.take(np.arange(len(boxes))[::-1])
    ids = boxes.class_ids.tolist()
    drawn = draw_bounding_boxes(
        pixels,
        torch.from_numpy(boxes.boxes_xyxy.copy()),
        labels=[f"{names[i]} {s:.2f}" for i, s in zip(ids, boxes.scores.tolist(), strict=True)],
        colors=[class_colour(index) for index in ids],
        width=max(1, round(min(image.shape[:2]) / 250)),
    )
    return drawn.permute(1, 2, 0).numpy()


def class_colour(index: int) -> tuple[int, int, int]:
    """RGB of a class; neighbouring classes get distant hues (golden ratio)."""
    red, green, blue = colorsys.hsv_to_rgb((index * 0.618034) % 1.0, 0.85, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def save_picture(path: Path, image: np.ndarray) -> None:
    """Write an RGB array in the format of the suffix; a JPEG says who drew it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, comment=MARK)
