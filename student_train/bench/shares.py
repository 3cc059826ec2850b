"""Where the time of a step goes, part by part."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import nn

from student_train.bench.step import (
    BenchSpec,
    Step,
    match_at_once,
    provenance,
    supervised,
    synthetic_batch,
)
from student_train.config import TrainConfig

_WARM_UP = 1


@dataclass(frozen=True)
class ShareResult:
    """Median seconds by part of a step."""

    spec: BenchSpec
    preset: str
    teachers: int
    seconds: dict[str, float]
    provenance: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """One record."""
        return {
            "kind": "shares",
            "preset": self.preset,
            "teachers": self.teachers,
            **vars(self.spec),
            "seconds": self.seconds,
            **self.provenance,
        }

    def table(self) -> Table:
        """Milliseconds and percent."""
        spec = self.spec
        table = Table(
            title=f"{self.preset}, {spec.batch} x {spec.height} x {spec.width}, "
            f"{self.teachers} teachers, {self.provenance['device']}",
            caption=f"medians of {spec.steps} steps, the device waited for after each part",
            title_justify="left",
        )
        table.add_column("part of a step")
        table.add_column("ms", justify="right")
        table.add_column("share", justify="right")
        total = sum(self.seconds.values())
        for part, seconds in self.seconds.items():
            table.add_row(part, f"{1e3 * seconds:.1f}", f"{100 * seconds / total:.1f} %")
        table.add_row("step", f"{1e3 * total:.1f}", "100 %")
        return table


def bench_shares(config: TrainConfig, spec: BenchSpec, teachers: int) -> ShareResult:
    """Measure the parts of steps with this many teachers."""
    step = Step(config)
    generator = torch.Generator().manual_seed(config.seed)
    batch = synthetic_batch(spec, teachers, config.model.n_classes, generator)
    rows = [_one_step(step, batch) for _ in range(_WARM_UP + spec.steps)][_WARM_UP:]
    parts = dict.fromkeys(part for row in rows for part in row)
    seconds = {part: statistics.median(row.get(part, 0.0) for row in rows) for part in parts}
    return ShareResult(spec, config.preset, teachers, seconds, provenance(step.runtime))


def _one_step(step: Step, batch: Any) -> dict[str, float]:
    found: dict[str, float] = {}
    found["copy and normalise"] = step.seconds(
        lambda: batch.to(step.runtime.device, step.config.model.pixels)
    )
    batch = batch.to(step.runtime.device, step.config.model.pixels)
    kept: list[Any] = []
    with _parts_timed(step, found):
        forward = step.seconds(lambda: kept.append(step.forward(batch)))
    inside = sum(v for part, v in found.items() if part != "copy and normalise")
    found["rest of forward"] = max(0.0, forward - inside)
    output = kept[0]
    supervisions = supervised(step, batch)

    found["matching"] = step.seconds(lambda: match_at_once(step, output, supervisions))
    losses: list[Any] = []
    both = step.seconds(lambda: losses.append(step.criterion(output, supervisions)))
    # the criterion matches too, and hides a part of it behind the denoising losses
    found["losses"] = max(0.0, both - found["matching"])
    found["backward"] = step.seconds(losses[0].total.backward)
    found["optimiser"] = step.seconds(step.optimise)
    return found


@contextmanager
def _parts_timed(step: Step, found: dict[str, float]) -> Iterator[None]:
    """Time the student's direct parts; what one calls inside another counts for the outer one."""
    running: list[str] = []
    started: dict[str, float] = {}
    handles = []

    def before(name: str) -> Any:
        def hook(_: nn.Module, __: Any) -> None:
            if not running:
                step.wait()
                started[name] = time.perf_counter()
            running.append(name)

        return hook

    def after(name: str) -> Any:
        def hook(_: nn.Module, __: Any, ___: Any) -> None:
            running.pop()
            if not running:
                step.wait()
                found[name] = found.get(name, 0.0) + time.perf_counter() - started[name]

        return hook

    for name, part in step.model.named_children():
        handles.append(part.register_forward_pre_hook(before(name)))
        handles.append(part.register_forward_hook(after(name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
