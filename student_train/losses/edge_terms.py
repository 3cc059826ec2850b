"""Losses of boxes that are distributions of edges (D-FINE, Peng et al., ICLR 2025).

With IoU_j that of a query's box on its layer with the box it answers for (no gradient), and N the
number of pairs:

    fgl  1/N  sum_j w_j IoU_j sum_e (1 - r) CE(below) + r CE(above)       section 3.1, eq. 6
         the distance at which edge e should lie falls between two bins, a share r to the upper
    ddf  layers learn from the last: T^2 KL(last / T || layer / T) of every edge, T = 5, weighted by
         IoU_j where a query answers for a box and by the last layer's best class elsewhere; means
         over both kinds of queries, weighted by the roots of their numbers    section 3.2, eq. 7
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from student_train.losses.set_loss import Matched, Pairs
from student_train.models.geometry import to_corners
from student_train.models.layers.edge_distribution import between_bins, edge_distances
from student_train.models.output import EdgeDistributions

_TEMPERATURE = 5.0


def stacked_logits(edges: EdgeDistributions, like: Tensor) -> Tensor:
    """[L, B, Q, 4, N + 1] in the dtype of the losses."""
    return torch.stack(edges.logits).to(like.dtype)


def fgl_losses(
    logits: Tensor,
    edges: EdgeDistributions,
    matched: Matched,
    goal: Tensor,
    pairs: Pairs,
    normaliser: Tensor,
) -> Tensor:
    """Fine-grained localisation of all sets on all layers: [S, L], no coefficients.

    logits: `stacked_logits`; goal [S, L, M, 4], the boxes that queries answer for; normaliser [S].
    """
    per_layer = edges.reference.shape[0] * edges.reference.shape[1]
    reference = edges.reference.flatten(0, 1)[pairs.place % per_layer].to(logits.dtype)
    distances, scale = edges.distances.to(logits.dtype), edges.scale.to(logits.dtype)
    moved = edge_distances(reference, to_corners(goal), scale)  # [S, L, M, 4]
    below, share = between_bins(moved, distances)
    log_p = F.log_softmax(logits.flatten(0, 2)[pairs.place], -1)
    low, high = (log_p.gather(-1, (below + k)[..., None])[..., 0] for k in (0, 1))
    entropy = -((1 - share) * low + share * high).sum(-1)
    return (matched.weights * matched.iou.detach() * entropy).sum(-1) / normaliser[:, None]


@dataclass(frozen=True)
class Distilled:
    """What layers have to learn from the last one."""

    means: tuple[Tensor, Tensor]
    """[L] each, of queries that answer for a box and of the others"""
    counts: tuple[Tensor, Tensor]
    """0-d each, how many those are"""

    def loss(self, counts: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """[L], no coefficient; `counts` in place of its own."""
        roots = [count.sqrt() for count in counts or self.counts]
        return (self.means[0] * roots[0] + self.means[1] * roots[1]) / (roots[0] + roots[1])


def distil(
    logits: Tensor, class_logits: Tensor, iou: Tensor, real: Tensor, place: Tensor
) -> Distilled:
    """Decoupled distillation of every layer from the last, with one set of pairs.

    logits: `stacked_logits`; class_logits [B, Q, C] of the last layer. Of the pairs, [L, M] each:
    the IoU, whether it is no padding, and its place among L x B x Q.
    """
    layers, images, queries = logits.shape[:3]
    log_p = F.log_softmax(logits / _TEMPERATURE, -1)
    divergence = F.kl_div(log_p, log_p[-1:].detach(), reduction="none", log_target=True)
    loss = divergence.sum(-1).mean(-1) * _TEMPERATURE**2  # [L, B, Q]
    confidence = class_logits.detach().sigmoid().amax(-1).to(iou.dtype)
    # one place more, where padding can write
    size = loss.numel()
    where = torch.where(real, place, size).flatten()
    weights = iou.new_zeros(size + 1)
    weights[:size] = confidence.expand_as(loss).flatten()
    weights[where] = iou.detach().flatten()
    answers = iou.new_zeros(size + 1).index_fill_(0, where, 1)[:size].view(layers, -1)
    weighted = loss.view(layers, -1) * weights[:size].view(layers, -1)
    with_box = answers[-1].sum()
    counts = with_box, images * queries - with_box
    sums = (weighted * answers).sum(1), (weighted * (1 - answers)).sum(1)
    return Distilled((sums[0] / counts[0].clamp(min=1), sums[1] / counts[1].clamp(min=1)), counts)
