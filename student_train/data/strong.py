"""The strong part of RT-DETR's augmentation: colours, smaller scenes, crops that keep some box.

torchvision has the three steps, as the official code takes them from there. They draw from
PyTorch's global generator, which is therefore seeded from the image's own and put back.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat, Image

from student_train.config import AugmentConfig

Step = Callable[..., Any]
SMALLEST_CROP = 0.3
"""part of a side that the IoU crop keeps at least, as in SSD"""


def strengthen(
    image: Tensor, boxes_xyxy: Tensor, config: AugmentConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Image uint8 [3, H, W] and boxes [N, 4] after photometric distortion, zooming out and the
    IoU crop of SSD (Liu et al., ECCV 2016, section 2.2), each by its probability.

    Boxes keep their places in the list: those that the crop has left out come back without area.
    All boxes count when a crop is chosen, whoever drew them.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    size = (image.shape[-2], image.shape[-1])
    framed = BoundingBoxes(
        boxes_xyxy,  # type: ignore[call-overload]
        format=BoundingBoxFormat.XYXY,
        canvas_size=size,
    )
    pixels: Any = Image(image)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pixels, framed = _photometric(config.photometric)(pixels, framed)
        pixels, framed = _zoom_out(config.zoom_out)(pixels, framed)
        # a scene without a box has nothing that a crop could keep
        if torch.rand(()) < config.iou_crop and len(boxes_xyxy):
            pixels, framed = _iou_crop()(pixels, framed)
    return pixels.as_subclass(Tensor), framed.as_subclass(Tensor)


@cache
def _photometric(probability: float) -> Step:
    # its own probability is that of each change; the official code gives it as such
    return v2.RandomPhotometricDistort(p=probability)


@cache
def _zoom_out(probability: float) -> Step:
    return v2.RandomZoomOut(fill=0, p=probability)


@cache
def _iou_crop() -> Step:
    return v2.RandomIoUCrop(min_scale=SMALLEST_CROP)
