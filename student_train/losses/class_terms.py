"""What a query pays for the classes it says: one `ClassTerm` for each `loss.classification`.

Another one is a class here, a line in `CLASS_TERMS`, a name in `config.Classification`, and its
formula, one query at a time, in `loop.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from student_train.losses.config import Classification, LossConfig


class ClassTerm(Protocol):
    """Class losses of a stack's queries, summed over the classes.

    Most queries have no box, whoever supervises; so what they cost is computed once for a stack and
    every set only adds what its own pairs change.
    """

    absent: Tensor
    """[L, B, Q], loss of a query that should say that there is nothing"""
    absent_weight: float
    """class weight of such a query; a matched one has 1"""
    weighted_mean: bool
    """whether the loss is divided by the sum of the weights (as PyTorch's) rather than by N"""

    def present(self, place: Tensor, labels: Tensor, values: Tensor, quality: Tensor) -> Tensor:
        """Loss of the queries at `place` (among L x B x Q) that should say `labels` with
        probability `values`; all of one shape, and so the result: the whole row of a query, its
        other classes included.

        quality: IoU of each query's predicted box with the box it is matched to, detached. Terms
        that are aware of it ask for `values` x a function of it.
        """
        ...


class FocalTerm:
    """Sigmoid focal loss (Lin et al., ICCV 2017)."""

    absent_weight = 1.0
    weighted_mean = False

    def __init__(self, logits: Tensor, config: LossConfig):
        """logits: [L, B, Q, C]."""
        self._logits, self._alpha, self._gamma = logits, config.focal_alpha, config.focal_gamma
        self.absent = self._without(logits).sum(-1)

    def present(self, place: Tensor, labels: Tensor, values: Tensor, quality: Tensor) -> Tensor:
        own = self._logits.flatten(0, 2)[place, labels]
        return self.absent.flatten()[place] - self._without(own) + self._with(own, values)

    def _without(self, logits: Tensor) -> Tensor:
        """Of a class that is not there."""
        return (self._alpha - 1) * F.logsigmoid(-logits) * logits.sigmoid() ** self._gamma

    def _with(self, logits: Tensor, values: Tensor) -> Tensor:
        """Of a class that is there, or that a soft label gives a probability."""
        p = logits.sigmoid()
        cross_entropy = F.binary_cross_entropy_with_logits(logits, values, reduction="none")
        miss = p * (1 - values) + (1 - p) * values
        balance = self._alpha * values + (1 - self._alpha) * (1 - values)
        return balance * cross_entropy * miss**self._gamma


class QualityTerm(ABC):
    """Sigmoid losses that ask for the quality of a box, its IoU y: the matched class of a query has
    to say what subclasses make of y; every other one 0, with weight alpha p^gamma. Weights carry no
    gradient.
    """

    absent_weight = 1.0
    weighted_mean = False
    own_alpha: float
    own_gamma: float

    def __init__(self, logits: Tensor, config: LossConfig):
        """logits: [L, B, Q, C]."""
        self._logits = logits
        self._alpha, self._gamma = config.quality(self.own_alpha, self.own_gamma)
        self.absent = self._without(logits).sum(-1)

    def present(self, place: Tensor, labels: Tensor, values: Tensor, quality: Tensor) -> Tensor:
        own = self._logits.flatten(0, 2)[place, labels]
        wanted, weight = self._goal(own.detach().sigmoid(), values, quality)
        said = F.binary_cross_entropy_with_logits(own, wanted, reduction="none")
        return self.absent.flatten()[place] - self._without(own) + weight * said

    @abstractmethod
    def _goal(self, p: Tensor, values: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """What a matched class that says `p` is to say, and the weight of its loss."""

    def _without(self, logits: Tensor) -> Tensor:
        """Of a class that is not there."""
        weight = self._alpha * logits.detach().sigmoid() ** self._gamma
        return -weight * F.logsigmoid(-logits)


class VarifocalTerm(QualityTerm):
    """Varifocal loss (Zhang et al., CVPR 2021), as RT-DETR trains with it. A matched pair that does
    not overlap weighs nothing.

        y BCE(p, y)      alpha p^gamma BCE(p, 0)
    """

    own_alpha, own_gamma = 0.75, 2.0

    def _goal(self, p: Tensor, values: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        return values * quality, values * quality


class MatchabilityAwareTerm(QualityTerm):
    """DEIM's loss (Huang et al., CVPR 2025, section 3.3): pairs that hardly overlap are pushed down
    with full weight. Its alpha is 1 unless it is set, as in the official configurations.

        BCE(p, y^gamma)      alpha p^gamma BCE(p, 0)
    """

    own_alpha, own_gamma = 1.0, 1.5

    def _goal(self, p: Tensor, values: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        return values * quality**self._gamma, torch.ones_like(quality)


class IouAwareTerm(QualityTerm):
    """IoU-aware binary cross-entropy of LW-DETR (arXiv 2406.03459, section 3.3, after Align-DETR):
    the goal depends on the probability too, and is 0.01 at least.

        BCE(p, t)      p^gamma BCE(p, 0)      t = p^alpha y^(1 - alpha)

    Other than above, the weight p^gamma carries a gradient.
    """

    own_alpha, own_gamma = 0.25, 2.0

    def _goal(self, p: Tensor, values: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        goal = (p**self._alpha * quality ** (1 - self._alpha)).clamp(min=0.01)
        return values * goal, torch.ones_like(quality)

    def _without(self, logits: Tensor) -> Tensor:
        """Of a class that is not there."""
        return -(logits.sigmoid() ** self._gamma) * F.logsigmoid(-logits)


class SoftmaxTerm:
    """Cross-entropy; the last class is no-object and takes what a soft label leaves over.

    It is a weighted mean, as PyTorch's and so DETR's and YOLOS':

        class  sum_q w_q CE_q / sum_q w_q

    with w_q the weight of q's box, or background x class weight of no-object. Teach-DETR
    does not say what becomes of its loss here; this keeps what it says elsewhere (a box counts as
    much as its teacher is sure of it, the background half) and has ground truth as the case of
    weights 1 and background 1.
    """

    weighted_mean = True

    def __init__(self, logits: Tensor, config: LossConfig):
        """logits: [L, B, Q, C + 1]."""
        self._log_p = logits.log_softmax(-1)
        self.absent = -self._log_p[..., -1]
        self.absent_weight = config.no_object

    def present(self, place: Tensor, labels: Tensor, values: Tensor, quality: Tensor) -> Tensor:
        said = self._log_p.flatten(0, 2)[place, labels]
        return (1 - values) * self.absent.flatten()[place] - values * said


CLASS_TERMS: Mapping[Classification, Callable[[Tensor, LossConfig], ClassTerm]] = {
    "focal": FocalTerm,
    "softmax": SoftmaxTerm,
    "vfl": VarifocalTerm,
    "mal": MatchabilityAwareTerm,
    "ia_bce": IouAwareTerm,
}
"""by `loss.classification`"""


def class_term(logits: Tensor, config: LossConfig) -> ClassTerm:
    """The class losses of a stack [L, B, Q, C], in float32 or wider."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return CLASS_TERMS[config.classification](logits, config)
