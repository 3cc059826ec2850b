"""What teachers cost: steps with and without them, in turns, and the losses against a loop."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.table import Table

from box_store.errors import UsageError
from student_train.bench.step import BenchSpec, Step, provenance, synthetic_batch
from student_train.bench.waits import Waits
from student_train.config import TrainConfig
from student_train.data import Batch
from student_train.losses.loop import loop_losses
from student_train.models.output import Denoising, Prediction, StudentOutput

_WARM_UP = 2


@dataclass(frozen=True)
class TeacherRow:
    """One number of teachers; seconds are medians."""

    teachers: int
    step: float
    overhead: float
    """median over rounds of (step / step of the same round with the fewest teachers) - 1"""
    added: float
    """(losses - losses with the fewest teachers) / step with the fewest: the same without the noise
    of the rest of the step"""
    losses: float
    """forward and backward of the losses alone, up to the predictions"""
    loop: float
    """the same by `loop_losses`"""
    speedup: float
    """median over rounds of loop / losses"""
    waits: int
    """times a step's losses and matching make the host wait"""

    def to_json(self) -> dict[str, Any]:
        """As it is."""
        return dict(vars(self))


@dataclass(frozen=True)
class TeacherResult:
    """All rows of one measurement."""

    spec: BenchSpec
    preset: str
    rows: tuple[TeacherRow, ...]
    memory_gib: float | None
    provenance: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """One record."""
        rows = [row.to_json() for row in self.rows]
        return {
            "kind": "teachers",
            "preset": self.preset,
            **vars(self.spec),
            "rows": rows,
            "memory_gib": self.memory_gib,
            **self.provenance,
        }

    def table(self) -> Table:
        """Milliseconds and ratios."""
        spec = self.spec
        table = Table(
            title=f"{self.preset}, {spec.batch} x {spec.height} x {spec.width}, "
            f"{spec.n_boxes} boxes a teacher, {self.provenance['device']}",
            caption=f"medians of {spec.steps} rounds, all taken in turns",
            title_justify="left",
        )
        columns = ("teachers", "step ms", "overhead", "losses add", "losses ms", "loop ms", "x")
        for column in (*columns, "waits"):
            table.add_column(column, justify="right")
        for row in self.rows:
            table.add_row(
                str(row.teachers),
                f"{1e3 * row.step:.1f}",
                f"{100 * row.overhead:+.1f} %",
                f"{100 * row.added:+.1f} %",
                f"{1e3 * row.losses:.1f}",
                f"{1e3 * row.loop:.1f}",
                f"{row.speedup:.1f}",
                str(row.waits),
            )
        return table


def parse_teachers(text: str) -> tuple[int, ...]:
    """`0,1,3`: numbers of teachers, ascending.

    Raises:
        UsageError: something else.
    """
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise UsageError(f"--teachers is a list of numbers such as 0,1,3, got {text!r}")
    return tuple(sorted({int(part) for part in parts}))


def bench_teachers(config: TrainConfig, spec: BenchSpec, counts: Sequence[int]) -> TeacherResult:
    """Measure steps with each number of teachers, in turns."""
    step = Step(config)
    generator = torch.Generator().manual_seed(config.seed)
    classes = config.model.n_classes
    # the same images and ground truth for all
    whole = synthetic_batch(spec, max(counts), classes, generator)
    batches = {n: _with_teachers(whole, n) for n in counts}
    for _ in range(_WARM_UP):
        for batch in batches.values():
            step(batch)
    steps = _rounds(spec.steps, counts, lambda n: step.seconds(lambda: step(batches[n])))
    on_device = {n: batch.to(step.runtime.device) for n, batch in batches.items()}
    output = step.forward(on_device[counts[0]])
    waits = {n: _waits(step, output, on_device[n]) for n in counts}

    def ours(n: int) -> float:
        leaves = _leaves(output)
        return step.seconds(lambda: step.losses(leaves, on_device[n]).total.backward())

    def loop(n: int) -> float:
        leaves, batch = _leaves(output), on_device[n]
        supervisions = step.criterion.supervise(batch.truth, batch.teachers)
        return step.seconds(lambda: loop_losses(leaves, supervisions, config.loss).total.backward())

    for n in counts:
        ours(n)
        loop(n)
    rounds = max(3, spec.steps // 2)
    pairs = _rounds(rounds, counts, lambda n: (ours(n), loop(n)))
    least = counts[0]
    times = {n: statistics.median(a for a, _ in pairs[n]) for n in counts}
    rows = tuple(
        TeacherRow(
            n,
            statistics.median(steps[n]),
            statistics.median(a / b for a, b in zip(steps[n], steps[least], strict=True)) - 1,
            (times[n] - times[least]) / statistics.median(steps[least]),
            times[n],
            statistics.median(b for _, b in pairs[n]),
            statistics.median(b / a for a, b in pairs[n]),
            waits[n],
        )
        for n in counts
    )
    on_gpu = step.runtime.device.type == "cuda"
    memory = torch.cuda.max_memory_allocated(step.runtime.device) / 2**30 if on_gpu else None
    return TeacherResult(spec, config.preset, rows, memory, provenance(step.runtime))


def _rounds(n: int, counts: Sequence[int], measure: Any) -> dict[int, list[Any]]:
    """`n` measurements of each, in turns and in both orders: drift of clocks and caches cancels."""
    found: dict[int, list[Any]] = {each: [] for each in counts}
    for index in range(n):
        for each in counts if index % 2 == 0 else reversed(counts):
            found[each].append(measure(each))
    return found


def _with_teachers(batch: Batch, n: int) -> Batch:
    packed = batch.boxes
    kept = packed.counts[: n + 1]
    rows = sum(count or 0 for counts in kept for count in counts)
    boxes = replace(
        packed,
        sources=packed.sources[:n],
        counts=kept,
        had_boxes=packed.had_boxes[: n + 1],
        rows=packed.rows[:rows],
    )
    return replace(batch, boxes=boxes)


def _leaves(output: StudentOutput) -> StudentOutput:
    """The same predictions, where gradients end."""

    def leaf(prediction: Prediction) -> Prediction:
        logits, boxes = prediction.logits.detach(), prediction.boxes.detach()
        return Prediction(logits.requires_grad_(), boxes.requires_grad_())

    def leaves(predictions: list[Prediction]) -> list[Prediction]:
        return [leaf(each) for each in predictions]

    noisy: Denoising | None = output.denoising
    return replace(
        output,
        layers=leaves(output.layers),
        proposals=None if output.proposals is None else leaf(output.proposals),
        one_to_many=None if output.one_to_many is None else leaves(output.one_to_many),
        denoising=None if noisy is None else replace(noisy, layers=leaves(noisy.layers)),
    )


def _waits(step: Step, output: StudentOutput, batch: Batch) -> int:
    with Waits() as waits:
        step.losses(_leaves(output), batch)
    # and the thread of the matching waits for the costs
    return waits.found.total() + 1
