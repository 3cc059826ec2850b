"""What the losses of a step are divided by: counts over all parts of its batch and all ranks.

A step may be cut into parts (gradient accumulation) and shared among ranks. It has the gradient of
one undivided batch only if every part is divided by the counts of the whole, known before the first
part is computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from student_train.losses.supervision import Supervision
from student_train.losses.transfer import upload


@dataclass(frozen=True)
class Totals:
    """Counts of one part of a step and of the whole: rows are supervisions; the columns boxes (as
    often as they are repeated), the sum of their weights, and images that the source knows.
    """

    names: tuple[str, ...]
    own: Tensor
    """[supervisions, 3], float64"""
    whole: Tensor
    """[supervisions, 3], the sum over all parts and ranks, divided by the number of ranks:
    gradients are averaged over ranks. Of this rank alone where a supervision asks for that"""
    floor: float
    """an empty batch counts as one box: 1 / ranks"""

    def pairs(self, counts: NDArray[np.int64] | None) -> Tensor:
        """[supervisions], the normalisers of losses over pairs, of which there are `counts` in this
        part on this rank (None: it has failed, and others wait for it); one collective operation.

        A step's pairs are not known before its last part: they are taken to be as many a box as
        in this part, on all ranks.
        """
        found = torch.zeros(2, len(self.own), dtype=self.own.dtype, device=self.own.device)
        if counts is not None:
            found[0] = upload(counts, found.device)
            found[1] = self.own[:, 0]
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(found)
        pairs, boxes = found
        return self.boxes() * torch.where(boxes > 0, pairs / boxes, 1)

    def boxes(self, groups: int = 1) -> Tensor:
        """[supervisions], the normalisers N before `Supervision.at_least`, where every box counts
        once for each group.
        """
        return (self.whole[:, 0] * groups).clamp(min=self.floor)


def totals_of(
    parts: Sequence[Sequence[Supervision]], device: torch.device, weights: bool = False
) -> list[Totals]:
    """The totals of every part of a step on this rank, one collective operation for all.

    weights: sum the boxes' weights too; otherwise that column is 0. All parts and all ranks must
    have supervisions of the same names.
    """
    # built on the host: a tensor made on the device from a list would wait for the device
    own = torch.tensor(
        [[_counts(each) for each in part] for part in parts], dtype=torch.float64
    ).to(device, non_blocking=True)  # [parts, supervisions, 3]
    if weights:
        own[..., 1] = torch.stack(
            [torch.stack([_weight(each, device) for each in part]) for part in parts]
        )
    mine, ranks = own.sum(0), 1
    whole = mine
    if dist.is_available() and dist.is_initialized():
        ranks = dist.get_world_size()
        whole = mine.clone()
        dist.all_reduce(whole)
        whole /= ranks
        alone = torch.tensor([each.own_counts for each in parts[0]])
        whole = torch.where(alone.to(device, non_blocking=True)[:, None], mine, whole)
    names = tuple(each.name for each in parts[0])
    return [Totals(names, part, whole, 1 / ranks) for part in own.unbind()]


def _counts(supervision: Supervision) -> tuple[float, float, float]:
    known = sum(each is not None for each in supervision.targets)
    return float(supervision.n_boxes), 0.0, float(known)


def _weight(supervision: Supervision, device: torch.device) -> Tensor:
    known = [each.scores for each in supervision.targets if each is not None]
    scores = torch.cat([torch.zeros(0, device=device), *known]).double()
    return (scores**supervision.power).sum() * supervision.repeat
