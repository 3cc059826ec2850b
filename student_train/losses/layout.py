"""The whole step laid out in a few arrays: which box lies where, and who answers for which.

Everything that the host knows before the matching crosses to the device in two transfers (integers
and numbers), and the matched pairs in a third, however many sources of boxes there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from student_train.losses.config import LossConfig
from student_train.losses.matcher import Match, Problem
from student_train.losses.plan import EDGE_TERMS, TERMS, BoxTable, Stack
from student_train.losses.set_loss import Pairs, Sets
from student_train.losses.totals import Totals
from student_train.losses.transfer import upload
from student_train.models.output import Denoising


@dataclass(frozen=True)
class StackSets:
    """The sets of one stack on the device."""

    rows: Tensor
    """LongTensor [B, T], rows of the boxes of every image, all sets in turn, padded; where pairs
    are known, [B, 1]: the row of the first box"""
    sets: Sets
    coefficients: Tensor
    """[5, S], of class, box, giou, fgl and ddf"""
    place: Tensor
    """LongTensor [S], of their supervisions among the totals"""
    least: Tensor
    """LongTensor [S], the sets whose normaliser is the least of their own"""

    def at_least(self, normaliser: Tensor) -> Tensor:
        """[S], normalisers as `Supervision.at_least` asks for them."""
        return torch.maximum(normaliser, normaliser[self.least])


class Layout:
    """All stacks of a step."""

    def __init__(self, stacks: Sequence[Stack], totals: Totals, config: LossConfig):
        self.stacks = stacks
        self.totals = totals
        like = stacks[0].prediction.boxes.detach()
        self.dtype = torch.promote_types(like.dtype, torch.float32)
        self.device = like.device
        self.table = BoxTable(stacks, like.to(self.dtype))
        self.names, order = _parts(stacks, totals.names)
        rows = [_rows(each, self.table) for each in stacks]
        places = [
            np.array([[totals.names.index(t.supervision.name) for t in each.tasks], each.least])
            for each in stacks
        ]
        self._order, *integers = _upload_all([order, *rows, *places], self.device)
        numbers = [array for each in stacks for array in _numbers(each, config)]
        uploaded = _upload_all(numbers, self.device)
        self.of: Mapping[str, StackSets] = {
            each.name: self._sets(
                mine, uploaded[2 * i], uploaded[2 * i + 1], totals, place, _counted(each, config)
            )
            for i, (each, mine, place) in enumerate(
                zip(stacks, integers[: len(stacks)], integers[len(stacks) :], strict=True)
            )
        }

    def labels(self, of: Stack) -> Tensor:
        """[N + 1], of the box table as a stack sees them."""
        return torch.zeros_like(self.table.labels) if of.classless else self.table.labels

    def problem(self, of: Stack) -> Problem:
        """What there is to match; known pairs are a problem without boxes, looked at for NaN."""
        if of.known:
            rows, counts, first = self.of[of.name].rows[:, :0], [], []
        else:
            rows, first = self.of[of.name].rows, [task.first for task in of.tasks]
            counts = [task.counts for task in of.tasks]
        return Problem(
            of.name,
            of.prediction,
            self.labels(of)[rows],
            self.table.boxes[rows],
            np.array(counts, np.int64),
            first,
            of.groups,
        )

    def share_of_images(self, of: Stack) -> Tensor:
        """[S], what part of the images of a step, that its sets know, is in this batch."""
        own, whole = (x[self.of[of.name].place, 2] for x in (self.totals.own, self.totals.whole))
        return torch.where(whole > 0, own / whole, 0).to(self.dtype)

    def known_pairs(self, of: Stack, denoising: Denoising) -> Pairs:
        """The pairs of the denoising queries, the same on every layer."""
        layers, images, queries = of.shape
        query = denoising.image_index * queries + denoising.slot_index
        row = self.of[of.name].rows[:, 0][denoising.image_index] + denoising.target_index
        layer = torch.arange(layers, device=self.device)[:, None] * (images * queries)
        place = (layer + query).expand(len(of.tasks), -1, -1)
        first = torch.arange(len(of.tasks), device=self.device) * (layers * images * queries)
        return Pairs(place, row.expand_as(place), place + first[:, None, None])

    def matched_pairs(
        self, stacks: Sequence[Stack], matches: Sequence[Sequence[Match]]
    ) -> list[Pairs]:
        """The pairs of several stacks, in one transfer."""
        tables = [_pairs(s, found, self.table) for s, found in zip(stacks, matches, strict=True)]
        return [Pairs(*table.unbind()) for table in _upload_all(tables, self.device)]

    def in_order(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The parts called `names`, from the losses [terms, S, L] of every stack."""
        return torch.cat([losses[each.name].flatten() for each in self.stacks])[self._order]

    def _sets(
        self,
        rows: Tensor,
        background: Tensor,
        numbers: Tensor,
        totals: Totals,
        places: Tensor,
        groups: int,
    ) -> StackSets:
        power, soft, released, copies, *rest = numbers.unbind()
        count = len(TERMS + EDGE_TERMS)
        coefficients, weighing = torch.stack(rest[:count]), torch.stack(rest[count:], 1)
        place, least = places.unbind()
        own, whole = ((weighing * each[place]).sum(1) for each in (totals.own, totals.whole))
        whole = torch.maximum(whole, whole[least])
        share = torch.where(whole > 0, own / whole, 1)
        boxes = totals.boxes(groups)[place]
        normaliser = torch.maximum(boxes, boxes[least]) * copies
        vectors = torch.stack([power, soft, released, normaliser, share]).to(self.dtype)
        sets = Sets(background.to(self.dtype), *vectors.unbind())
        return StackSets(rows, sets, coefficients.to(self.dtype), place, least)


def _parts(
    stacks: Sequence[Stack], supervisions: Sequence[str]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Names of all parts in the order of the supervisions, and where each lies among the flattened
    losses [terms, S, L] of all stacks.
    """
    found: list[tuple[int, str, int]] = []
    start = 0
    for each in stacks:
        layers, n_sets = each.shape[0], len(each.tasks)
        for index, task in enumerate(each.tasks):
            name = task.supervision.name
            for number, term in enumerate(each.terms):
                at = start + (number * n_sets + index) * layers
                for layer in task.layers(term, layers):
                    part = f"{name}/{term}/{each.label(layer)}"
                    found.append((supervisions.index(name), part, at + layer))
        start += len(each.terms) * n_sets * layers
    # stable: within a supervision, stack by stack
    found.sort(key=lambda part: part[0])
    return tuple(name for _, name, _ in found), np.array([at for *_, at in found], np.int64)


def _counted(of: Stack, config: LossConfig) -> int:
    """How often the normaliser counts every box."""
    return of.groups if config.groups == "mean" else 1


def _rows(of: Stack, table: BoxTable) -> NDArray[np.int64]:
    """See `StackSets.rows`."""
    if of.known:
        (task,) = of.tasks
        return np.array([[table.start(each)] for each in task.supervision.targets], np.int64)
    images = list(zip(*(table.rows(task) for task in of.tasks), strict=True))
    beside = [np.concatenate(image) for image in images]
    rows = np.full((len(beside), max(map(len, beside))), table.padding, np.int64)
    for image, mine in enumerate(beside):
        rows[image, : len(mine)] = mine
    return rows


def _numbers(of: Stack, config: LossConfig) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Background weights [S, L, B], and twelve numbers a set [12, S]: power, soft, released,
    copies, five coefficients, and three by which boxes, weights and images make the weight of a
    layer.
    """
    background = np.zeros((len(of.tasks), *of.shape[:2]))
    columns = []
    for index, task in enumerate(of.tasks):
        supervision = task.supervision
        unmatched = supervision.background if task.weighted else 1.0
        power = supervision.power if task.weighted else 0.0
        covered = np.array([targets is not None for targets in supervision.targets])
        background[index, task.first :] = unmatched * covered
        by_term = (config.class_loss, config.l1_loss, config.giou_loss)
        coefficients = np.array([*by_term, config.fgl_loss, config.ddf_loss])
        empty = unmatched * config.no_object
        columns.append(
            (
                power,
                supervision.soft,
                supervision.released_giou,
                task.copies,
                *(coefficients * supervision.coefficient),
                *((-empty, 1.0) if power else (1.0 - empty, 0.0)),
                empty * of.shape[2],
            )
        )
    return background, np.array(columns, np.float64).T


def _pairs(of: Stack, matches: Sequence[Match], table: BoxTable) -> NDArray[np.int64]:
    """[3, S, L, M]: place, row and hidden of `Pairs`, padded. Matches of one layer are those of
    every layer.
    """
    layers, images, queries = of.shape
    most = max(len(match.image) for match in matches)
    size = layers * images * queries
    # padding reads different queries, so that no single one collects its zero gradients
    place = np.broadcast_to(np.arange(most) % size, (len(matches), layers, most)).copy()
    row = np.full_like(place, table.padding)
    hidden = np.full_like(place, len(matches) * size)
    for index, (task, match) in enumerate(zip(of.tasks, matches, strict=True)):
        mine = table.rows(task)
        starts = np.cumsum([0, *map(len, mine)])
        layer = np.arange(task.first, layers)[:, None]
        places = (layer * images + match.image) * queries + match.query
        at = (index, slice(task.first, None), slice(len(match.image)))
        place[at], hidden[at] = places, index * size + places
        row[at] = np.concatenate(mine)[starts[match.image] + match.target]
    return np.stack([place, row, hidden])


def _upload_all(arrays: Sequence[np.ndarray], device: torch.device) -> list[Tensor]:
    """Several arrays of one dtype in one transfer."""
    if not arrays:
        return []
    packed = upload(np.concatenate([each.ravel() for each in arrays]), device)
    parts = packed.split([each.size for each in arrays])
    return [part.view(each.shape) for part, each in zip(parts, arrays, strict=True)]
