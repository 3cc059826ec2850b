"""Training images of the demo's own recipes: scenes zoomed, cropped, mirrored, recoloured."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from box_store.coco.annotations import CocoData
from student_train.data import read_image

# a box that keeps less than this part of itself after the crop is not asked for
_MIN_KEPT = 0.4


@dataclass(frozen=True)
class Crop:
    """One training image."""

    pixels: Tensor  # uint8 [3, H, W], RGB
    boxes_xyxy: Tensor  # float32 [N, 4], pixels of the crop
    labels: Tensor  # int64 [N], position of the category in the data set's table


class CropSampler:
    """Random crops of a COCO-format data set; what comes out depends on the generator alone."""

    def __init__(
        self, folder: Path, coco: CocoData, crop_px: int, zoom: tuple[float, float]
    ) -> None:
        self._folder = folder
        self._coco = coco
        self._crop_px = crop_px
        self._zoom = zoom
        self._label_of = {c.id: i for i, c in enumerate(coco.categories.items)}

    def batch(self, size: int, rng: np.random.Generator) -> list[Crop]:
        """`size` crops of different images."""
        chosen = rng.choice(len(self._coco.images), size, replace=False)
        return [self.crop(int(i), rng) for i in chosen]

    def crop(self, index: int, rng: np.random.Generator) -> Crop:
        """A crop of the image at `index`, at most `crop_px` on a side."""
        image = self._coco.images[index]
        truth = self._coco.annotations_of(image.id)
        pixels = read_image(self._folder / image.file_name)
        boxes = truth.boxes_xyxy.astype(np.float64)
        labels = np.asarray([self._label_of[int(c)] for c in truth.category_ids], np.int64)
        zoom = rng.uniform(*self._zoom)
        height, width = round(image.height * zoom), round(image.width * zoom)
        pixels = resize(pixels, [height, width], antialias=True)
        boxes *= np.tile([width / image.width, height / image.height], 2)
        top = int(rng.integers(max(0, height - self._crop_px) + 1))
        left = int(rng.integers(max(0, width - self._crop_px) + 1))
        pixels = pixels[:, top : top + self._crop_px, left : left + self._crop_px]
        height, width = pixels.shape[1:]
        full = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        boxes = (boxes - np.tile([left, top], 2)).clip(0, np.tile([width, height], 2))
        kept = (boxes[:, 2:] - boxes[:, :2]).prod(1) > _MIN_KEPT * full
        boxes, labels = boxes[kept], labels[kept]
        if rng.random() < 0.5:
            pixels = pixels.flip(2)
            boxes = boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [width, 0, width, 0]
        gain = torch.from_numpy(rng.uniform(0.8, 1.2, (3, 1, 1)).astype(np.float32))
        pixels = (pixels * gain).clamp(0, 255).byte()
        return Crop(pixels, torch.from_numpy(boxes).float(), torch.from_numpy(labels))
