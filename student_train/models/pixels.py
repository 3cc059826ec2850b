"""How pixels are scaled before a student sees them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pixels:
    """(x / 255 - mean) / deviation of red, green and blue; 0 in the padding."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    @property
    def is_scaled(self) -> bool:
        """Whether anything is done to values of 0..1."""
        return self != UNIT

    def scaled(self, images: Tensor, mask: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] to float32; `mask` [B, H, W] is True on padding."""
        mean, deviation = self._on(images.device)
        return ((images.float() - 255 * mean) / (255 * deviation)).masked_fill(mask[:, None], 0.0)

    def rescaled(self, images: Tensor, mask: Tensor, to: Pixels) -> Tensor:
        """Images scaled so, [B, 3, H, W], as another student wants them."""
        if to == self:
            return images
        mean, deviation = self._on(images.device)
        other_mean, other_deviation = to._on(images.device)
        images = (images * deviation + mean - other_mean) / other_deviation
        return images.masked_fill(mask[:, None], 0.0)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        # filled, not copied from a list: that would make the host wait
        mean, deviation = (
            torch.stack([torch.full((1, 1), value, device=device) for value in values])
            for values in (self.mean, self.deviation)
        )
        return mean, deviation


IMAGENET = Pixels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""statistics of ImageNet's RGB, what most backbones were trained with"""
UNIT = Pixels((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""RGB in 0..1, as RT-DETR's and D-FINE's code has it"""
