"""What teachers cost: steps with and without them, in turns, and the losses against a loop."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.table import Table

from box_store.errors import UsageError
from box_store.measure.paired import Cost, Interval, in_turns, ratio
from box_store.patience import Say, patience
from student_train.bench.step import (
    BenchSpec,
    Step,
    match_at_once,
    provenance,
    supervised,
    synthetic_batch,
)
from student_train.bench.waits import Waits
from student_train.config import TrainConfig
from student_train.data import Batch
from student_train.losses.loop import loop_losses, loop_matching
from student_train.models.output import Denoising, Prediction, StudentOutput

_WARM_UP = 2
_WORDS = {
    "step": "whole steps",
    "ours": "losses",
    "loop": "losses by the loop",
    "matching": "matching",
    "matching_loop": "matching one by one",
}


@dataclass(frozen=True)
class TeacherRow:
    """One number of teachers; seconds are medians."""

    teachers: int
    step: Cost
    overhead: Interval
    """step / step of the same round with the fewest teachers - 1, in wall time"""
    overhead_cpu: Interval
    """the same in processor time"""
    losses: Cost
    """forward and backward of the losses alone, up to the predictions"""
    added: Interval
    """(losses - losses with the fewest teachers) / step with the fewest: the same without the noise
    of the rest of the step, in processor time on a CPU"""
    loop: Cost
    """the losses by `loop_losses`"""
    speedup: Interval
    """loop / losses of the same round"""
    assignments: int
    """bipartite matchings of a step"""
    matching: Cost
    """all of them in one piece of work, costs included"""
    matching_loop: Cost
    """the same by `loop_matching`, one after the other"""
    matching_speedup: Interval
    """matching_loop / matching of the same round"""
    matching_share: Interval
    """matching / step of the same round"""
    waits: int
    """times a step's losses and matching make the host wait"""

    def to_json(self) -> dict[str, Any]:
        """Costs and intervals by the names of their numbers."""
        found = vars(self).items()
        return {k: v._asdict() if isinstance(v, Cost | Interval) else v for k, v in found}


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
        clock = "ms" if self.memory_gib is not None else "processor ms"
        table = Table(
            title=f"{self.preset}, {spec.batch} x {spec.height} x {spec.width}, "
            f"{spec.n_boxes} boxes a teacher, {self.provenance['device']}",
            caption=f"medians of {spec.steps} rounds, all in turns; in brackets: where the median "
            "lies with 90 %",
            title_justify="left",
        )
        table.add_column("teachers")
        for row in self.rows:
            table.add_column(str(row.teachers), justify="right")
        base = self.rows[0]
        rows: tuple[tuple[str, Callable[[TeacherRow], str]], ...] = (
            ("step, ms", lambda row: f"{1e3 * row.step.wall:.1f}"),
            ("step, processor ms", lambda row: f"{1e3 * row.step.cpu:.1f}"),
            ("adds, wall time", lambda row: row.overhead.percent()),
            ("adds, processor time", lambda row: row.overhead_cpu.percent()),
            (f"losses, {clock}", lambda row: f"{1e3 * self.witness(row.losses):.1f}"),
            ("losses add to the step", lambda row: row.added.percent()),
            (f"by the loop, {clock}", lambda row: f"{1e3 * self.witness(row.loop):.1f}"),
            ("loop / losses", lambda row: row.speedup.text("{:.1f}")),
            ("assignments", lambda row: str(row.assignments)),
            (f"matching, {clock}", lambda row: f"{1e3 * self.witness(row.matching):.1f}"),
            ("matching / step", lambda row: _percent(row.matching_share)),
            (f"one by one, {clock}", lambda row: f"{1e3 * self.witness(row.matching_loop):.1f}"),
            ("one by one / matching", lambda row: row.matching_speedup.text("{:.1f}")),
            ("waits of the host", lambda row: str(row.waits)),
        )
        for name, cell in rows:
            compared = " add" in name or name.startswith("adds")
            cells = ("-" if compared and row is base else cell(row) for row in self.rows)
            table.add_row(name, *cells)
        return table

    def witness(self, cost: Cost) -> float:
        """The time to judge by: a CPU's neighbours do not count, a GPU's work does."""
        return cost.wall if self.memory_gib is not None else cost.cpu


def parse_teachers(text: str) -> tuple[int, ...]:
    """`0,1,3`: numbers of teachers, ascending.

    Raises:
        UsageError: something else.
    """
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise UsageError(f"--teachers is a list of numbers such as 0,1,3, got {text!r}")
    return tuple(sorted({int(part) for part in parts}))


def bench_teachers(
    config: TrainConfig, spec: BenchSpec, counts: Sequence[int], say: Say = lambda text: None
) -> TeacherResult:
    """Measure steps with each number of teachers, in turns."""
    step = Step(config)
    generator = torch.Generator().manual_seed(config.seed)
    classes = config.model.n_classes
    # the same images and ground truth for all
    whole = synthetic_batch(spec, max(counts), classes, generator)
    batches = {n: _with_teachers(whole, n) for n in counts}
    pixels = config.model.pixels
    on_device = {n: batch.to(step.runtime.device, pixels) for n, batch in batches.items()}
    output = step.forward(on_device[counts[0]])
    waits = {n: _waits(step, output, on_device[n]) for n in counts}

    def ours(n: int) -> Cost:
        leaves = _leaves(output)
        return step.cost(lambda: step.losses(leaves, on_device[n]).total.backward())

    def loop(n: int) -> Cost:
        leaves, batch = _leaves(output), on_device[n]
        supervisions = supervised(step, batch)
        return step.cost(lambda: loop_losses(leaves, supervisions, config.loss).total.backward())

    solved: dict[int, int] = {}

    def matching(n: int) -> Cost:
        leaves, supervisions = _leaves(output), supervised(step, on_device[n])
        return step.cost(lambda: match_at_once(step, leaves, supervisions))

    def matching_loop(n: int) -> Cost:
        leaves, supervisions = _leaves(output), supervised(step, on_device[n])

        def all_of_them() -> None:
            solved[n] = loop_matching(leaves, supervisions, config.loss)

        return step.cost(all_of_them)

    measures = {
        "step": lambda n: step.cost(lambda: step(batches[n])),
        "ours": ours,
        "loop": loop,
        "matching": matching,
        "matching_loop": matching_loop,
    }
    with patience(say, f"{config.preset}: warming up"):
        for _ in range(_WARM_UP):
            for n in counts:
                measures["step"](n)
                ours(n)
                matching(n)
    found: dict[str, dict[int, list[Cost]]] = {}
    for number, (name, measure) in enumerate(measures.items(), 1):
        with patience(say, f"{number} of {len(measures)}: {_WORDS[name]}, {spec.steps} rounds"):
            found[name] = in_turns(spec.steps, counts, measure)
    on_gpu = step.runtime.device.type == "cuda"
    memory = torch.cuda.max_memory_allocated(step.runtime.device) / 2**30 if on_gpu else None
    rows = tuple(_row(n, counts[0], found, solved[n], waits[n], on_gpu) for n in counts)
    return TeacherResult(spec, config.preset, rows, memory, provenance(step.runtime))


def _row(
    n: int,
    least: int,
    found: dict[str, dict[int, list[Cost]]],
    solved: int,
    waits: int,
    on_gpu: bool,
) -> TeacherRow:
    steps, ours, loop = (found[name] for name in ("step", "ours", "loop"))
    matching, one_by_one = found["matching"][n], found["matching_loop"][n]
    at = Cost._fields.index("wall" if on_gpu else "cpu")
    whole = statistics.median(cost[at] for cost in steps[least])
    return TeacherRow(
        n,
        _median(steps[n]),
        *ratio(steps[n], steps[least]),
        _median(ours[n]),
        Interval.of([(a[at] - b[at]) / whole for a, b in zip(ours[n], ours[least], strict=True)]),
        _median(loop[n]),
        Interval.of([a[at] / b[at] for a, b in zip(loop[n], ours[n], strict=True)]),
        solved,
        _median(matching),
        _median(one_by_one),
        Interval.of([a[at] / b[at] for a, b in zip(one_by_one, matching, strict=True)]),
        Interval.of([a[at] / b[at] for a, b in zip(matching, steps[n], strict=True)]),
        waits,
    )


def _percent(share: Interval) -> str:
    return Interval(*(100 * each for each in share)).text("{:.1f}", " %")


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.median(each) for each in zip(*costs, strict=True)))


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
