"""Bipartite matching of predictions and boxes: one cost computation and one copy to the host.

A step asks for many small matchings: decoder layers x images x (ground truth + teachers) x groups
of queries. All boxes of an image are laid side by side, whoever drew them, and all groups too, so
that one padded tensor holds every cost of a stack. All costs cross to the host in one copy, and a
pool of threads solves each matching there (`solver.py`). Meanwhile the device works and the caller
goes on queueing work for it: `start_matching` waits for nothing, `PendingMatches.result` does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from box_store.errors import TeachDetrError
from student_train.losses.config import Form, LossConfig, MatchCost
from student_train.losses.costs import pair_costs
from student_train.losses.solver import Assignment, UnsolvableCosts, in_background, solve
from student_train.losses.transfer import Download
from student_train.models.output import Prediction, stack
from student_train.models.targets import Targets


class NonFinitePrediction(TeachDetrError):
    """The student returned NaN or infinity: nothing can be matched, training has diverged.

    `where` names the layer, `image` is the image's index in the batch.
    """

    def __init__(self, where: str, image: int):
        super().__init__(
            f"the student predicted NaN or infinity ({where}, image {image} of the batch); "
            "training has diverged: lower the learning rate, or resume from an earlier checkpoint"
        )
        self.where = where
        self.image = image


class Match(NamedTuple):
    """Who is responsible for which box, on the host. Every layer has the same number of pairs."""

    image: NDArray[np.int64]  # [M], the same for all layers, ascending
    query: NDArray[np.int64]  # [L, M]
    target: NDArray[np.int64]  # [L, M], index into the boxes of that image


@dataclass(frozen=True)
class Problem:
    """One stack of predictions to be matched with several sets of boxes, each on its own."""

    where: str
    """what the stack is, for error messages: `decoder layer`"""
    prediction: Prediction
    """[L, B, Q, ...]"""
    labels: Tensor
    """LongTensor [B, T], of all boxes of an image: set by set, then padding"""
    boxes: Tensor
    """[B, T, 4]"""
    counts: NDArray[np.int64]
    """[sets, B], boxes of every set in every image; none: nothing to match"""
    first_layers: Sequence[int]
    """per set, the layer it starts at: earlier ones are not matched"""
    groups: int = 1
    """equal parts of the queries, one after the other, each matched with all boxes"""


class PendingMatches:
    """Costs on their way to the host, and solutions in the making."""

    def __init__(self, problems: Sequence[Problem], config: LossConfig):
        self._problems = problems
        self._shapes = [_costs_shape(problem) for problem in problems]
        if problems[0].prediction.boxes.device.type == "cpu":
            # costs are computed where they are solved, beside what the caller does
            self._solving = in_background(lambda: self._solve(self._costs(config).numpy()))
        else:
            download = Download(self._costs(config))
            self._solving = in_background(lambda: self._solve(download.result()))

    @torch.no_grad()
    def _costs(self, config: LossConfig) -> Tensor:
        """Whether predictions are finite, then all costs, flat: one copy for everything that the
        host wants to know.
        """
        flags = torch.cat([_finite(problem.prediction).flatten() for problem in self._problems])
        sizes = [len(flags), *(shape.numel() for shape in self._shapes)]
        flat = torch.empty(sum(sizes), device=flags.device)
        room, *rooms = flat.split(sizes)
        room.copy_(flags)
        for p, shape, room in zip(self._problems, self._shapes, rooms, strict=True):
            pair_costs(p.prediction, p.labels, p.boxes, config, room.view(shape))
        return flat

    def result(self) -> list[list[Match]]:
        """Wait: per problem, the matching of every set. Raises NonFinitePrediction."""
        return self._solving.result()

    def _solve(self, flat: np.ndarray) -> list[list[Match]]:
        start = 0
        for problem, (layers, images, _, _) in zip(self._problems, self._shapes, strict=True):
            stop = start + layers * images
            _check_finite(problem.where, flat[start:stop].reshape(layers, images))
            start = stop
        blocks: list[np.ndarray] = []
        owners: list[tuple[int, int, int]] = []
        for number, (problem, shape) in enumerate(zip(self._problems, self._shapes, strict=True)):
            stop = start + shape.numel()
            found = list(_blocks(problem, flat[start:stop].reshape(shape)))
            blocks += [block for block, _, _ in found]
            owners += [(number, layer, image) for _, layer, image in found]
            start = stop
        try:
            solved = iter(solve(blocks))
        except UnsolvableCosts as error:
            number, layer, image = owners[error.index]
            where = self._problems[number].where
            raise NonFinitePrediction(f"{where} {layer}, so large", image) from None
        return [
            [
                _match(set_counts, shape[0] - first, problem.groups, shape[-1], solved)
                for set_counts, first in zip(problem.counts, problem.first_layers, strict=True)
            ]
            for problem, shape in zip(self._problems, self._shapes, strict=True)
        ]


def _blocks(problem: Problem, cost: np.ndarray) -> Iterator[tuple[np.ndarray, int, int]]:
    """The costs of every single matching with its layer and image; `_match` takes them in order."""
    starts = np.cumsum(problem.counts, 0) - problem.counts
    size = cost.shape[-1] // problem.groups
    for index, first in enumerate(problem.first_layers):
        for image in np.flatnonzero(problem.counts[index]):
            start, count = starts[index, image], problem.counts[index, image]
            for layer in range(first, len(cost)):
                boxes = cost[layer, image, start : start + count]
                for group in range(problem.groups):
                    yield boxes[:, group * size : (group + 1) * size], layer, int(image)


def _match(
    counts: NDArray[np.int64],
    layers: int,
    groups: int,
    n_queries: int,
    solved: Iterator[Assignment],
) -> Match:
    """The matching of one set, from the next solutions."""
    columns = []
    first = np.arange(groups)[:, None] * (n_queries // groups)
    for image in np.flatnonzero(counts):
        pairs = islice(solved, layers * groups)
        targets, queries = (np.stack(side) for side in zip(*pairs, strict=True))
        queries = (queries.reshape(layers, groups, -1) + first).reshape(layers, -1)
        targets = targets.reshape(layers, -1)
        columns.append((np.full(queries.shape[1], image, np.int64), queries, targets))
    if not columns:
        none = np.zeros((layers, 0), np.int64)
        return Match(none[0], none, none)
    images, queries, targets = zip(*columns, strict=True)
    return Match(np.concatenate(images), np.concatenate(queries, 1), np.concatenate(targets, 1))


def start_matching(problems: Sequence[Problem], config: LossConfig) -> PendingMatches:
    """Compute all costs and send them to be solved without waiting for anything."""
    with torch.autocast(problems[0].prediction.boxes.device.type, enabled=False):
        return PendingMatches(problems, config)


def match(
    prediction: Prediction,
    targets: list[Targets],
    cost: MatchCost | None = None,
    form: Form = "focal",
) -> list[tuple[Tensor, Tensor]]:
    """Match one layer with one set of boxes: per image (query indices, target indices)."""
    config = LossConfig(match=cost or MatchCost(), classification=form)
    problem = problem_of("layer", stack([prediction]), [list(targets)], [0])
    ((found,),) = start_matching([problem], config).result()
    return split_by_image(found, len(targets))[0]


def problem_of(
    where: str,
    prediction: Prediction,
    box_sets: Sequence[Sequence[Targets | None]],
    first_layers: Sequence[int],
) -> Problem:
    """A problem from sets of targets, each with one entry an image; None = nothing to match."""
    counts = [[0 if each is None else len(each) for each in box_set] for box_set in box_sets]
    labels, boxes = [], []
    for image in zip(*box_sets, strict=True):
        known = [each for each in image if each is not None]
        labels.append(torch.cat([torch.zeros(0).long(), *(each.labels for each in known)]))
        boxes.append(torch.cat([torch.zeros(0, 4), *(each.boxes for each in known)]))
    pad = torch.nn.utils.rnn.pad_sequence
    return Problem(
        where,
        prediction,
        pad(labels, batch_first=True),
        pad(boxes, batch_first=True),
        np.array(counts, np.int64),
        first_layers,
    )


def split_by_image(match: Match, n_images: int) -> list[list[tuple[Tensor, Tensor]]]:
    """Per layer and image: (query indices, indices of that image's targets), on the host."""
    cuts = np.searchsorted(match.image, np.arange(n_images + 1))
    return [
        [
            (torch.from_numpy(query[start:stop]), torch.from_numpy(target[start:stop]))
            for start, stop in pairwise(cuts)
        ]
        for query, target in zip(match.query, match.target, strict=True)
    ]


def _costs_shape(problem: Problem) -> torch.Size:
    layers, images, queries, _ = problem.prediction.boxes.shape
    return torch.Size((layers, images, problem.labels.shape[1], queries))


def _finite(prediction: Prediction) -> Tensor:
    """[L, B], 1 where all logits and boxes are finite."""
    logits, boxes = prediction.logits.detach(), prediction.boxes.detach()
    # sums carry NaN and infinity along, in one pass over the memory
    total = logits.sum((2, 3), dtype=torch.float32) + boxes.sum((2, 3), dtype=torch.float32)
    return total.isfinite()


def _check_finite(where: str, finite: np.ndarray) -> None:
    if not finite.all():
        layer, image = np.argwhere(finite == 0)[0]
        where = f"{where} {layer}" if len(finite) > 1 else where
        raise NonFinitePrediction(where, int(image))
