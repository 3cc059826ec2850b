"""What every student returns: one type, so that one loss and one post-processing serve them all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

Form = Literal["focal", "softmax"]
"""Two ways to say a class: a sigmoid for each (trained by the focal loss), or a softmax whose
last logit is no-object."""


@dataclass
class Prediction:
    """Boxes and class logits of one decoder layer, or of the encoder's proposals."""

    logits: Tensor
    """[B, Q, C], before the sigmoid; softmax students: [B, Q, C + 1], before the softmax, the last
    is no-object"""
    boxes: Tensor
    """[B, Q, 4], (cx, cy, w, h) divided by the size of the valid (unpadded) image, in 0..1"""

    def queries(self, start: int, stop: int | None) -> Prediction:
        """Those of queries `start` to `stop`."""
        return Prediction(self.logits[:, start:stop], self.boxes[:, start:stop])


@dataclass
class EdgeDistributions:
    """Boxes as layers of a decoder say them: how far each edge of a first box is to be moved, as a
    distribution (see `layers/edge_distribution.py`)."""

    logits: list[Tensor]
    """per layer, [B, Q, 4, N + 1]: left, top, right, bottom edge"""
    reference: Tensor
    """[B, Q, 4], (cx, cy, w, h): the boxes whose edges are moved; carries no gradient"""
    distances: Tensor
    """[N + 1], what each bin means; rising"""
    scale: Tensor
    """0-d, what a side of the reference is divided by"""

    def queries(self, start: int, stop: int | None) -> Self:
        """Those of queries `start` to `stop`."""
        return replace(
            self,
            logits=[each[:, start:stop] for each in self.logits],
            reference=self.reference[:, start:stop],
        )


@dataclass
class Denoising:
    """Predictions of the queries that were made from noised ground truth.

    Their targets are known, so no matcher is asked: entry m says that slot `slot_index[m]` of image
    `image_index[m]` has to restore target `target_index[m]` of that image. Slots that no entry
    names (negatives, padding) are background.
    """

    layers: list[Prediction]
    """first to last decoder layer, each [B, n_slots, ...]"""
    image_index: Tensor
    """LongTensor [M]"""
    slot_index: Tensor
    """LongTensor [M]"""
    target_index: Tensor
    """LongTensor [M], index into the targets of its own image"""
    n_groups: int
    """how many noised copies of the ground truth there are: the losses are divided by it"""
    n_slots: int
    """slots of an image, P: positives, negatives and padding of all groups"""
    initial: Prediction | None = None
    """D-FINE: as `StudentOutput.initial`, of these queries"""
    edges: EdgeDistributions | None = None
    """D-FINE: as `StudentOutput.edges`, of these queries"""


@dataclass
class StudentOutput:
    """One forward pass."""

    layers: list[Prediction]
    """first to last decoder layer, matching queries only"""
    classification: Form = "focal"
    """how logits are read"""
    proposals: Prediction | None = None
    """two-stage students: the encoder's own. DINO: the selected 900; Deformable: all tokens"""
    proposal_labels: Literal["class", "binary"] = "class"
    """whether the proposals' logits tell classes apart, or only logit 0 (an object) counts"""
    one_to_many: list[Prediction] | None = None
    """H-DETR: the second set of queries, first to last decoder layer"""
    n_groups: int = 1
    """LW-DETR, RF-DETR in training: so many equal parts of the queries, one after the other, each
    of which is matched with all boxes"""
    denoising: Denoising | None = None
    """in training only"""
    initial: Prediction | None = None
    """D-FINE, in training: the boxes whose edges the layers move, and classes read beside them"""
    edges: EdgeDistributions | None = None
    """D-FINE: the distributions that `layers` have their boxes from"""

    @property
    def last(self) -> Prediction:
        """What inference uses."""
        return self.layers[-1]


@dataclass
class Selected:
    """What an exported file says: detections that are chosen already, best first."""

    scores: Tensor
    """[B, k] in 0..1"""
    labels: Tensor
    """LongTensor [B, k], logit indices"""
    boxes: Tensor
    """[B, k, 4], corners in 0..1 of each image without its padding"""


def stack(predictions: list[Prediction]) -> Prediction:
    """Layers of equal shape as one prediction with a leading layer axis: [L, B, Q, ...]."""
    return Prediction(
        torch.stack([p.logits for p in predictions]), torch.stack([p.boxes for p in predictions])
    )
