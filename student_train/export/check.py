"""Whether two programs detect the same: each detection is looked for among the other's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from student_train.export.program import Example

Run = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""images and mask to scores, labels and boxes"""


@dataclass(frozen=True)
class Agreement:
    """How far detections lie from those expected."""

    score: float
    """largest difference of a score"""
    box: float
    """largest difference of a box side, in image sides"""
    changed: int
    """detections that have no like of their class"""

    @property
    def worst(self) -> float:
        """The larger difference; infinite where a class changed."""
        return math.inf if self.changed else max(self.score, self.box)

    def worse(self, other: Agreement) -> Agreement:
        """The worse of both in everything."""
        return Agreement(
            max(self.score, other.score),
            max(self.box, other.box),
            max(self.changed, other.changed),
        )


def largest_difference(reference: Run, other: Run, example: Example) -> float:
    """The largest difference of a score, or of a box side in image sides, over all detections."""
    with torch.inference_mode():
        expected = reference(example.images, example.mask)
        found = other(example.images, example.mask)
    return agreement(expected, found).worst


def agreement(
    expected: tuple[Tensor, Tensor, Tensor], found: tuple[Tensor, Tensor, Tensor]
) -> Agreement:
    """Scores [B, K], labels [B, K] and boxes [B, K, 4] of two programs.

    Detections are paired by label: programs that round differently may order near ties otherwise.
    The last of the k may be cut off differently, so a detection whose score ties with the lowest
    counts by score alone.
    """
    worst = Agreement(0.0, 0.0, 0)
    for mine, theirs in zip(zip(*expected, strict=True), zip(*found, strict=True), strict=True):
        worst = worst.worse(_of_image(mine, theirs))
    return worst


def _of_image(
    mine: tuple[Tensor, Tensor, Tensor], theirs: tuple[Tensor, Tensor, Tensor]
) -> Agreement:
    scores, labels, boxes = (x.double() for x in mine)
    other_scores, other_labels, other_boxes = (x.double().nan_to_num(math.inf) for x in theirs)
    ranked = float((scores - other_scores).abs().max())
    score_apart = (scores[:, None] - other_scores).abs()
    box_apart = (boxes[:, None] - other_boxes).abs().amax(-1)
    apart = torch.maximum(score_apart, box_apart)
    apart = apart.masked_fill(labels[:, None] != other_labels, math.inf)
    nearest, at = apart.min(1)
    # what lies within the rounding of the last score may have been cut off
    counted = scores > scores[-1] + max(1e-6, min(ranked, 0.1 * float(scores[-1])))
    alike = counted & nearest.isfinite() & (nearest < 0.5)
    rows = torch.arange(len(scores))
    return Agreement(
        max(ranked, float(score_apart[rows, at][alike].max()) if alike.any() else 0.0),
        float(box_apart[rows, at][alike].max()) if alike.any() else 0.0,
        int((counted & ~alike).sum()),
    )
