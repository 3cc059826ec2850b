"""One training step on synthetic images, as the trainer makes it, and what to measure of it."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from box_store.errors import UsageError
from box_store.measure.paired import Cost
from detr_kernels import explain
from student_train.config import TrainConfig
from student_train.data import Batch, BoxSets
from student_train.losses import Criterion, Losses, Supervision
from student_train.losses.layout import Layout
from student_train.losses.matcher import start_matching
from student_train.losses.plan import plan
from student_train.losses.totals import totals_of
from student_train.machine.compiling import compile_parts
from student_train.machine.runtime import Runtime
from student_train.models import StudentOutput, Targets, build_student
from student_train.runs.provenance import source_revision, versions
from student_train.settings.sizes import parse_size
from student_train.training.optim import clip_gradients, make_optimizer

_TRUTH_BOXES = 7


@dataclass(frozen=True)
class BenchSpec:
    """What to measure: image size in pixels, images a step, steps, boxes a teacher and image."""

    height: int
    width: int
    batch: int
    steps: int
    n_boxes: int

    @classmethod
    def parse(cls, size: str, batch: int, steps: int, n_boxes: int) -> "BenchSpec":
        """Check the numbers of the command line.

        Raises:
            UsageError: a size that is not HEIGHTxWIDTH, or a count below 1.
        """
        height, width = parse_size(size, 32)
        if min(batch, steps, n_boxes) < 1:
            raise UsageError("--batch, --steps and --boxes are at least 1")
        return cls(height, width, batch, steps, n_boxes)


def default_preset() -> str:
    """A preset that this machine can step through in seconds."""
    return "dino-r50-4scale" if torch.cuda.is_available() else "dino-mobilenetv2"


def default_steps() -> int:
    """Enough steps for a median in reasonable time."""
    return 20 if torch.cuda.is_available() else 5


def provenance(runtime: Runtime) -> dict[str, Any]:
    """What a row was measured on."""
    return {
        "device": runtime.describe(),
        "attention": explain(runtime.device),
        "machine": platform.machine(),
        "versions": versions(),
        "source": source_revision(),
    }


class Step:
    """A student with its optimiser and losses, to be stepped."""

    def __init__(self, config: TrainConfig):
        self.config = config
        self.runtime = Runtime.start(config.device, config.amp, config.threads)
        torch.manual_seed(config.seed)
        self.model = build_student(config.model).to(self.runtime.device).train()
        self.optimizer = make_optimizer(self.model, config.optim, self.runtime.device)
        self.criterion = Criterion(config.loss)
        compile_parts(self.model, config.compile)

    def forward(self, batch: Batch) -> Any:
        """The student's output for a batch on the device."""
        with self.runtime.autocast():
            return self.model(batch.images, batch.mask, batch.truth)

    def losses(self, output: Any, batch: Batch) -> Losses:
        """All losses."""
        return self.criterion(output, self.criterion.supervise(batch.truth, batch.teachers))

    def optimise(self) -> None:
        """Clip, and take the step."""
        clip_gradients(self.model.parameters(), self.config.optim.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def __call__(self, batch: Batch) -> None:
        """All of a step, from the bytes of a batch."""
        batch = batch.to(self.runtime.device, self.config.model.pixels)
        self.losses(self.forward(batch), batch).total.backward()
        self.optimise()

    def seconds(self, action: Callable[[], Any]) -> float:
        """Wall seconds of an action, the device's work included."""
        return self.cost(action).wall

    def cost(self, action: Callable[[], Any]) -> Cost:
        """What an action takes, the device's work included."""
        self.wait()
        wall, cpu = time.perf_counter(), time.process_time()
        action()
        self.wait()
        return Cost(time.perf_counter() - wall, time.process_time() - cpu)

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.runtime.device.type == "cuda":
            torch.cuda.synchronize(self.runtime.device)


def supervised(step: Step, batch: Batch) -> list[Supervision]:
    """Who supervises a step, ground truth first."""
    return step.criterion.supervise(batch.truth, batch.teachers)


def match_at_once(step: Step, output: StudentOutput, supervisions: list[Supervision]) -> None:
    """The matching of a step, as its losses ask for it."""
    with torch.autocast(step.runtime.device.type, enabled=False):
        stacks = plan(output, supervisions)
        totals = totals_of([supervisions], step.runtime.device)[0]
        layout = Layout(stacks, totals, step.config.loss)
        start_matching([layout.problem(each) for each in stacks], step.config.loss).result()


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
