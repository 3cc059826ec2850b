"""Mosaics of four images, as DEIM trains with (Huang et al., CVPR 2025, section 3.2: more boxes an
image, and so more matched queries).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat, Image

from box_store.boxes import Boxes
from student_train.config import AugmentConfig

_AFFINE = v2.RandomAffine(degrees=(-10, 10), translate=(0.1, 0.1), scale=(0.5, 1.5))
"""of a whole mosaic, as DEIM's configurations have it"""


def is_mixed_epoch(config: AugmentConfig, epoch: int) -> bool:
    """Whether mosaics and mixtures are made in an epoch, counted from 0."""
    if config.mixed_epochs is None:
        return True
    return config.mixed_epochs[0] <= epoch < config.mixed_epochs[1]


def companions(config: AugmentConfig, count: int, epoch: int, draw: torch.Generator) -> list[int]:
    """The three other images, of `count`, of a mosaic; none where none is to be made."""
    if not config.mosaic or not is_mixed_epoch(config, epoch):
        return []
    if torch.rand((), generator=draw) >= config.mosaic:
        return []
    return torch.randint(count, (3,), generator=draw).tolist()


def compose(
    parts: Sequence[tuple[Tensor, Sequence[Boxes | None]]], side: int, draw: torch.Generator
) -> tuple[Tensor, list[Boxes | None]]:
    """Four images uint8 [3, H, W] with the boxes of each source as one, scaled into the quarters of
    a square of `side` px, the whole turned, moved and scaled a little.

    A source knows the mosaic if it knows all four. Boxes may lie outside.
    """
    half = side // 2
    canvas = torch.zeros(3, 2 * half, 2 * half, dtype=torch.uint8)
    factors, corners = [], []
    for number, (image, _) in enumerate(parts):
        height, width = image.shape[-2:]
        scale = half / max(height, width)
        h, w = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = half * (number // 2), half * (number % 2)
        canvas[:, top : top + h, left : left + w] = v2.functional.resize(image, [h, w])
        factors.append(np.array([w / width, h / height] * 2, np.float32))
        corners.append(np.array([left, top] * 2, np.float32))
    sources = [
        _placed(each, factors, corners, 2 * half)
        for each in zip(*(boxes for _, boxes in parts), strict=True)
    ]
    known = [each for each in sources if each is not None]
    framed = BoundingBoxes(
        torch.from_numpy(  # type: ignore[call-overload]
            np.concatenate([np.zeros((0, 4), np.float32), *(each.boxes_xyxy for each in known)])
        ),
        format=BoundingBoxFormat.XYXY,
        canvas_size=(2 * half, 2 * half),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=draw)))
        pixels, framed = _AFFINE(Image(canvas), framed)
    moved = iter(framed.as_subclass(Tensor).split([len(each) for each in known]))
    return pixels.as_subclass(Tensor), [
        None if each is None else replace(each, boxes_xyxy=next(moved).numpy()) for each in sources
    ]


def _placed(
    parts: Sequence[Boxes | None],
    factors: Sequence[np.ndarray],
    corners: Sequence[np.ndarray],
    size: int,
) -> Boxes | None:
    """Boxes of one source on the four images, where these lie on the canvas; None if it does not
    know one of them.
    """
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    boxes = [
        part.boxes_xyxy * factor + corner
        for part, factor, corner in zip(known, factors, corners, strict=True)
    ]
    return Boxes(
        np.concatenate(boxes).astype(np.float32),
        np.concatenate([part.scores for part in known]),
        np.concatenate([part.class_ids for part in known]),
        width=size,
        height=size,
    )
