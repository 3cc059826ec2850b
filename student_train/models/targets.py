"""The boxes of one image that a loss compares predictions with, whoever drew them."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor


@dataclass
class Targets:
    """N boxes of one image: ground truth, or what one teacher saw."""

    labels: Tensor
    """LongTensor [N], logit indices"""
    boxes: Tensor
    """FloatTensor [N, 4], (cx, cy, w, h) divided by the size of the valid image"""
    scores: Tensor
    """FloatTensor [N] in 0..1; 1 for ground truth"""
    had_boxes: bool = True
    """False: this image had no box even before it was cropped. Only read where N is 0"""
    known: bool = True
    """False: nobody has said what is in this image, so that having no box says nothing"""

    def __len__(self) -> int:
        return self.labels.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The same on another device."""
        return replace(
            self,
            labels=self.labels.to(device, non_blocking=non_blocking),
            boxes=self.boxes.to(device, non_blocking=non_blocking),
            scores=self.scores.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> Self:
        """The same in page-locked memory."""
        return replace(
            self,
            labels=self.labels.pin_memory(),
            boxes=self.boxes.pin_memory(),
            scores=self.scores.pin_memory(),
        )

    def repeat(self, times: int) -> Self:
        """The whole list `times` times over, for one-to-many matching."""
        return replace(
            self,
            labels=self.labels.repeat(times),
            boxes=self.boxes.repeat(times, 1),
            scores=self.scores.repeat(times),
        )

    @classmethod
    def unknown(cls, like: Tensor) -> Self:
        """Ground truth of an image that nobody labelled; `like` lends the device."""
        nothing = torch.zeros(0, device=like.device)
        return cls(nothing.long(), nothing.view(0, 4), nothing, known=False)

    @classmethod
    def truth(cls, labels: Tensor, boxes: Tensor) -> Self:
        """Ground truth: every score is 1."""
        return cls(labels, boxes, torch.ones_like(boxes[:, 0]))
