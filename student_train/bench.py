"""Seconds of a training step by part, on synthetic images, with and without teachers in turns."""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table

from box_store.errors import UsageError
from detr_kernels import explain
from student_train.config import TrainConfig
from student_train.data import Batch, BoxSets
from student_train.losses import Criterion
from student_train.models import Targets, build_student
from student_train.optim import clip_gradients, make_optimizer
from student_train.run_folder import versions
from student_train.runtime import Runtime

PARTS = ("data", "forward", "losses", "backward", "optimiser")
_WARM_UP = 2
_TRUTH_BOXES = 7


@dataclass(frozen=True)
class BenchSpec:
    """What to measure: image size in pixels, images a step, steps, teachers and their boxes."""

    height: int
    width: int
    batch: int
    steps: int
    n_teachers: int
    n_boxes: int

    @classmethod
    def parse(cls, size: str, batch: int, steps: int, n_teachers: int, n_boxes: int) -> "BenchSpec":
        """Check the numbers of the command line.

        Raises:
            UsageError: a size that is not HEIGHTxWIDTH, or a count below 1.
        """
        sides = size.lower().split("x")
        if len(sides) != 2 or not all(side.isdigit() and int(side) >= 32 for side in sides):
            raise UsageError(f"--size is HEIGHTxWIDTH of at least 32x32, got {size!r}")
        if min(batch, steps, n_boxes) < 1 or n_teachers < 0:
            raise UsageError("--batch, --steps and --boxes are at least 1, --teachers at least 0")
        return cls(int(sides[0]), int(sides[1]), batch, steps, n_teachers, n_boxes)


@dataclass(frozen=True)
class BenchResult:
    """Medians in seconds by part; `total` is the median of whole steps."""

    spec: BenchSpec
    preset: str
    device: str
    attention: str
    without: dict[str, float]
    with_teachers: dict[str, float]
    overhead: float
    """median over pairs of steps of (with / without) - 1"""
    memory_gib: float | None

    def to_json(self) -> dict[str, Any]:
        """One row with provenance."""
        return {
            "preset": self.preset,
            "device": self.device,
            "attention": self.attention,
            "height": self.spec.height,
            "width": self.spec.width,
            "batch": self.spec.batch,
            "steps": self.spec.steps,
            "teachers": self.spec.n_teachers,
            "boxes": self.spec.n_boxes,
            "seconds": {"without": self.without, "with_teachers": self.with_teachers},
            "teacher_overhead": self.overhead,
            "memory_gib": self.memory_gib,
            "versions": versions(),
            "machine": platform.machine(),
        }

    def table(self) -> Table:
        """Milliseconds by part."""
        spec = self.spec
        table = Table(
            title=f"{self.preset}, {spec.batch} x {spec.height} x {spec.width}, {self.device}",
            caption=f"medians of {spec.steps} steps; teachers cost {100 * self.overhead:+.1f} %",
            title_justify="left",
        )
        table.add_column("ms a step")
        table.add_column("without", justify="right")
        table.add_column(f"{spec.n_teachers} teachers", justify="right")
        for part in (*PARTS, "total"):
            table.add_row(
                part, f"{1e3 * self.without[part]:.1f}", f"{1e3 * self.with_teachers[part]:.1f}"
            )
        return table


def default_preset() -> str:
    """A preset that this machine can step through in seconds."""
    return "dino-r50-4scale" if torch.cuda.is_available() else "dino-mobilenetv2"


def default_steps() -> int:
    """Enough steps for a median in reasonable time."""
    return 10 if torch.cuda.is_available() else 3


def run_bench(config: TrainConfig, spec: BenchSpec) -> BenchResult:
    """Measure training steps of a configuration on random images and boxes."""
    runtime = Runtime.start(config.device, config.amp, config.threads)
    torch.manual_seed(config.seed)
    model = build_student(config.model).to(runtime.device).train()
    optimizer = make_optimizer(model, config.optim, runtime.device)
    criterion = Criterion(config.loss)
    generator = torch.Generator().manual_seed(config.seed)
    n_classes = config.model.n_classes
    batches = {n: synthetic_batch(spec, n, n_classes, generator) for n in (0, spec.n_teachers)}

    def step(n_teachers: int) -> dict[str, float]:
        clock = _PartClock(runtime.device)
        batch = clock.time("data", lambda: batches[n_teachers].to(runtime.device))
        with runtime.autocast():
            output = clock.time("forward", lambda: model(batch.images, batch.mask, batch.truth))
        losses = clock.time(
            "losses",
            lambda: criterion(output, criterion.supervise(batch.truth, batch.teachers)),
        )
        clock.time("backward", losses.total.backward)

        def optimise() -> None:
            clip_gradients(model.parameters(), config.optim.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        clock.time("optimiser", optimise)
        return clock.seconds

    for _ in range(_WARM_UP):
        step(0)
        step(spec.n_teachers)
    pairs = []
    for index in range(spec.steps):
        # in turns and in both orders, so that drift of clocks and caches cancels
        order = (0, spec.n_teachers) if index % 2 == 0 else (spec.n_teachers, 0)
        first, second = step(order[0]), step(order[1])
        pairs.append((first, second) if order[0] == 0 else (second, first))
    on_gpu = runtime.device.type == "cuda"
    return BenchResult(
        spec,
        config.preset,
        runtime.describe(),
        explain(runtime.device),
        _medians([pair[0] for pair in pairs]),
        _medians([pair[1] for pair in pairs]),
        statistics.median(sum(b.values()) / sum(a.values()) for a, b in pairs) - 1,
        torch.cuda.max_memory_allocated(runtime.device) / 2**30 if on_gpu else None,
    )


class _PartClock:
    """Wall seconds by part, the device waited for at each border."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._on_gpu = device.type == "cuda"

    def time(self, part: str, action: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = action()
        if self._on_gpu:
            torch.cuda.synchronize()
        self.seconds[part] = time.perf_counter() - started
        return result


def synthetic_batch(
    spec: BenchSpec, n_teachers: int, n_classes: int, generator: torch.Generator
) -> Batch:
    """Noise images with random boxes; no padding."""
    shape = (spec.batch, 3, spec.height, spec.width)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    def targets(n: int, scored: bool) -> Targets:
        centres = 0.2 + 0.6 * torch.rand(n, 2, generator=generator)
        sizes = 0.05 + 0.3 * torch.rand(n, 2, generator=generator)
        scores = torch.rand(n, generator=generator) if scored else torch.ones(n)
        labels = torch.randint(0, n_classes, (n,), generator=generator)
        return Targets(labels, torch.cat([centres, sizes], 1), scores)

    return Batch(
        images=images,
        sizes=torch.tensor([[spec.height, spec.width]] * spec.batch),
        boxes=BoxSets.pack(
            [targets(_TRUTH_BOXES, False) for _ in range(spec.batch)],
            {
                f"teacher{index}": [targets(spec.n_boxes, True) for _ in range(spec.batch)]
                for index in range(n_teachers)
            },
        ),
        image_ids=list(range(spec.batch)),
        original_sizes=torch.tensor([[spec.height, spec.width]] * spec.batch),
    )


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    found = {part: statistics.median(row[part] for row in rows) for part in PARTS}
    return found | {"total": statistics.median(sum(row.values()) for row in rows)}
