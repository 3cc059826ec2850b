"""The whole training loss of a step: all supervisions of a stack of layers in one set loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from box_store.errors import UsageError
from student_train.losses.config import LossConfig, classifications
from student_train.losses.layout import Layout
from student_train.losses.matcher import (
    Match,
    NonFinitePrediction,
    PendingMatches,
    split_by_image,
    start_matching,
)
from student_train.losses.plan import PROPOSALS, TERMS, Stack, plan
from student_train.losses.step import StepLosses
from student_train.losses.supervision import Supervision, denoising_targets, supervise
from student_train.losses.totals import Totals, totals_of
from student_train.losses.union import union_of
from student_train.models.output import StudentOutput
from student_train.models.targets import Targets

__all__ = ["PROPOSALS", "TERMS", "Criterion", "Losses", "fold"]


@dataclass(frozen=True)
class Losses:
    """The loss of a step and what it is made of."""

    total: Tensor
    """0-d, with gradient"""
    names: tuple[str, ...]
    """of the parts, SOURCE/TERM/LAYER: `truth/class/5`, `teacher:yolox/giou/proposals`"""
    values: Tensor
    """[parts], detached. All coefficients are applied: the parts add up to the total"""
    parts_with_gradient: Tensor
    """[parts], the same, before they were added up"""

    @property
    def parts(self) -> dict[str, Tensor]:
        """Every part by its name."""
        return dict(zip(self.names, self.values.unbind(), strict=True))

    def folded(self) -> dict[str, float]:
        """For people: see `fold`. Copies to the host once."""
        return fold(self.names, self.values)


def fold(names: Sequence[str], values: Tensor) -> dict[str, float]:
    """Parts summed up for the progress line; also for parts averaged over steps or ranks.

    `class`, `box` and `giou` are the ground truth's; `denoising` and every `teacher:NAME` are sums
    of their three terms; together they make `total`.
    """
    numbers: dict[str, float] = dict.fromkeys(("total", *TERMS), 0.0)
    for name, value in zip(names, values.tolist(), strict=True):
        source, term, _ = name.rsplit("/", 2)
        source = source.removesuffix("+one_to_many")
        key = term if source in ("truth", "one_to_many") else source
        numbers["total"] += value
        numbers[key] = numbers.get(key, 0.0) + value
    return numbers


class Criterion:
    """Turns a student's output and a list of supervisions into a loss.

    Holds no parameters and no state. Computes in float32 (or float64, if the predictions are)
    whatever autocast says. All ranks of a distributed run must pass supervisions of the same names.

    However many teachers supervise, a step has the same number of operations: one copy of all costs
    to the host, where they are solved, and a few transfers to the device (`layout.py`). The host
    waits once, for the pairs.
    """

    def __init__(self, config: LossConfig | None = None):
        self.config = config or LossConfig()

    def supervise(
        self,
        truth: Sequence[Targets],
        teachers: Mapping[str, Sequence[Targets | None]] | None = None,
        epoch: float = 0.0,
    ) -> list[Supervision]:
        """The list for a batch, by this criterion's config: see `supervision.supervise`."""
        return supervise(self.config, truth, teachers, epoch)

    def denoising_targets(
        self,
        truth: Sequence[Targets],
        teachers: Mapping[str, Sequence[Targets | None]] | None = None,
    ) -> Sequence[Targets]:
        """What the student's denoising queries are to be made from: see the function of that name
        in `supervision`.
        """
        return denoising_targets(self.config, truth, teachers)

    def totals(self, parts: Sequence[Sequence[Supervision]], device: torch.device) -> list[Totals]:
        """What every part of a step is to be divided by: for `__call__`, one entry a part."""
        return totals_of(parts, device, weights=self.config.classification == "softmax")

    def __call__(
        self,
        output: StudentOutput,
        supervisions: Sequence[Supervision],
        totals: Totals | None = None,
    ) -> Losses:
        """The loss of one batch, or of one part of a step's batch, whose `totals` are then given.

        Raises NonFinitePrediction if the student returned NaN or infinity, UsageError if nothing
        supervises it, or its logits are not of the form that the config says.
        """
        self._check_form(output)
        device = output.last.boxes.device
        with torch.autocast(device.type, enabled=False):
            stacks = plan(output, supervisions)
            layout = Layout(stacks, totals or self.totals([supervisions], device)[0], self.config)
            pending = start_matching([layout.problem(each) for each in stacks], self.config)
            step = StepLosses(layout, self.config)
            # known pairs first: the device works on them while the costs travel to the host
            for each in stacks:
                if each.known and output.denoising is not None:
                    step.add(each, layout.known_pairs(each, output.denoising))
            self._add_matched(step, layout, pending)
            values = step.values()
            return Losses(values.sum(), layout.names, values.detach(), values)

    def matches(
        self, output: StudentOutput, supervisions: Sequence[Supervision]
    ) -> dict[str, list[list[tuple[Tensor, Tensor]]]]:
        """Who is matched with whom, to look at a run: per `SOURCE/STACK`, per layer and image,
        (query indices, target indices of that image), on the host.
        """
        return {
            f"{task.supervision.name}/{each.name}": split_by_image(match, each.shape[1])
            for each, matches in zip(*self._match(output, supervisions), strict=True)
            for task, match in zip(each.tasks, matches, strict=True)
        }

    def unions(
        self, output: StudentOutput, supervisions: Sequence[Supervision]
    ) -> dict[str, list[tuple[Tensor, Tensor]]]:
        """The same of the pairs that all layers share (`loss.pairs=union`): per source and image.

        Raises UsageError where layers and proposals have different numbers of queries.
        """
        images = len(output.last.boxes)
        found = self._unions(*self._match(output, supervisions))
        return {name: split_by_image(match, images)[0] for name, match in found.items()}

    def _match(
        self, output: StudentOutput, supervisions: Sequence[Supervision]
    ) -> tuple[list[Stack], list[list[Match]]]:
        self._check_form(output)
        stacks = [each for each in plan(output, supervisions) if not each.known]
        totals = totals_of([supervisions], output.last.boxes.device)[0]
        layout = Layout(stacks, totals, self.config)
        problems = [layout.problem(each) for each in stacks]
        return stacks, start_matching(problems, self.config).result()

    def _check_form(self, output: StudentOutput) -> None:
        if output.classification != self.config.form:
            suited = " or ".join(classifications(output.classification))
            raise UsageError(
                f"loss.classification: expected {suited}, which read this student's logits, got "
                f"{self.config.classification}; set loss.classification={output.classification}"
            )

    def _add_matched(self, step: StepLosses, layout: Layout, pending: PendingMatches) -> None:
        """The losses of all stacks that are matched."""
        stacks = [each for each in layout.stacks if not each.known]
        shares = self.config.pairs == "union"
        try:
            results = pending.result()
        except NonFinitePrediction:
            if shares:
                layout.totals.pairs(None)
            raise
        found = [m for m, each in zip(results, layout.stacks, strict=True) if not each.known]
        if not shares:
            for each, pairs in zip(stacks, layout.matched_pairs(stacks, found), strict=True):
                step.add(each, pairs)
            return
        unions = self._unions(stacks, found)
        shared = [[unions[task.supervision.name] for task in each.tasks] for each in stacks]
        counts = [len(unions[name].image) if name in unions else 0 for name in layout.totals.names]
        normalisers = layout.totals.pairs(np.array(counts, np.int64))
        both = layout.matched_pairs([*stacks, *stacks], [*found, *shared])
        for each, own, other in zip(stacks, both[: len(stacks)], both[len(stacks) :], strict=True):
            step.add(each, own, other, normalisers)

    def _unions(
        self, stacks: Sequence[Stack], found: Sequence[Sequence[Match]]
    ) -> dict[str, Match]:
        """By supervision, the pairs that all its layers share."""
        by_name: dict[str, list[Match]] = {}
        sizes: dict[str, set[int]] = {}
        for stack, matches in zip(stacks, found, strict=True):
            for task, match in zip(stack.tasks, matches, strict=True):
                by_name.setdefault(task.supervision.name, []).append(match)
                sizes.setdefault(task.supervision.name, set()).add(stack.shape[2])
        for name, queries in sizes.items():
            if len(queries) > 1:
                raise UsageError(
                    "loss.pairs: expected own, for this student's layers and proposals have "
                    f"different numbers of queries ({name}: {sorted(queries)}), so none answers "
                    "for the same box on all; got union; set loss.pairs=own"
                )
        return {name: union_of(each, *sizes[name]) for name, each in by_name.items()}
