"""What every student is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from student_train.models.config import StudentConfig
from student_train.models.output import StudentOutput
from student_train.models.targets import Targets

Config = TypeVar("Config", bound=StudentConfig)


class Student(nn.Module, ABC, Generic[Config]):
    """A detector that predicts a set of boxes, built from a configuration of its family."""

    config: Config
    """what it was built from"""

    @abstractmethod
    def forward(
        self,
        images: Tensor,
        mask: Tensor,
        targets: list[Targets] | None = None,
        noise: Any = None,
    ) -> StudentOutput:
        """Detect.

        Args:
            images: [B, 3, H, W], normalised, each in the upper left corner and zero elsewhere.
            mask: [B, H, W], True on padding.
            targets: one an image; in training they start denoising queries, in families that have
                some. Others do not look at them.
            noise: random numbers of the denoising queries, in place of fresh ones.

        Returns:
            Of every layer logits [B, Q, C] and boxes [B, Q, 4], (cx, cy, w, h) in 0..1 of each
            image without its padding; those of further queries apart.
        """

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that are trained without weight decay: none, unless a family says
        so."""
        return set()

    def depths(self) -> dict[str, int]:
        """Layers of the backbone from a parameter to its end, by name, for rates that fall with
        depth: none, unless a family says so."""
        return {}
