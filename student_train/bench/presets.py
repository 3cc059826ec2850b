"""Every preset at its real size: with the fastest attention here (Triton, numba) and with the one
in plain torch.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from box_store.measure.processes import forget_peak, peak_bytes
from box_store.patience import Say, patience
from detr_kernels import choose_backend
from student_train.bench.step import BenchSpec, Step, provenance, synthetic_batch
from student_train.config import TrainConfig
from student_train.models.output import StudentOutput

_LONG_S = 60.0
"""a preset whose steps take longer altogether is measured with fewer of them"""


@dataclass(frozen=True)
class PresetRow:
    """One preset. Times are medians of forward, losses and backward of a batch, in seconds: of the
    wall on a GPU, of processors on a CPU, which others may use too.
    """

    preset: str
    parameters: int
    height: int
    width: int
    batch: int
    seconds: dict[str, float | None]
    """by backend of deformable attention; `only` for families that have none"""
    images_per_second: float | None
    """of the fastest backend"""
    memory_gib: dict[str, float | None]
    """peak by backend: of the device, or on a CPU of the whole process"""
    steps: int
    """that were measured"""
    gradient_difference: float | None
    """largest norm of (triton - reference) / norm of reference over parameters, in float32, of a
    loss that needs no matching"""
    problem: str = ""
    """why a number is missing"""

    def to_json(self, provenance: dict[str, Any]) -> dict[str, Any]:
        """One record."""
        return {"kind": "preset", **asdict(self), **provenance}


def presets_table(rows: Sequence[PresetRow], device: str) -> Table:
    """Milliseconds by backend, ratio, memory, gradient difference."""
    table = Table(title=f"forward + losses + backward, {device}", title_justify="left")
    table.add_column("preset")
    fast = next((name for row in rows for name in row.seconds if name not in _PLAIN), "fast")
    for column in ("M par.", "size", f"{fast} ms", "torch ms", "x", "img/s", "GiB", "steps"):
        table.add_column(column, justify="right")
    table.add_column("grad diff" if fast == "triton" else "", justify="right")
    for row in rows:
        plain = row.seconds.get("torch", row.seconds.get("only"))
        ours = row.seconds.get(fast)
        table.add_row(
            row.preset,
            f"{row.parameters / 1e6:.1f}",
            f"{row.batch}x{row.height}x{row.width}",
            _milliseconds(ours),
            _milliseconds(plain),
            f"{plain / ours:.2f}" if ours and plain else "-",
            "-" if row.images_per_second is None else f"{row.images_per_second:.1f}",
            " / ".join("-" if m is None else f"{m:.1f}" for m in row.memory_gib.values()),
            str(row.steps),
            row.problem or _difference(row.gradient_difference),
        )
    return table


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.1f}"


def _difference(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def bench_presets(
    configs: Sequence[TrainConfig], specs: Sequence[BenchSpec], say: Say = lambda text: None
) -> Iterator[tuple[PresetRow, dict[str, Any]]]:
    """A row for each configuration, and what it was measured on, as they are done."""
    for number, (config, spec) in enumerate(zip(configs, specs, strict=True), 1):
        yield _row(config, spec, lambda what, n=number: say(f"{n} of {len(specs)}: {what}"))


_PLAIN = ("torch", "only")


def _backends(config: TrainConfig, on_gpu: bool) -> dict[str, str]:
    """What is measured, by the name that people know it by."""
    if not hasattr(config.model, "attention_backend"):
        return {"only": ""}
    fast = "triton" if on_gpu else choose_backend("cpu")[0]
    return {fast: "triton" if on_gpu else "auto", "torch": "torch"}


def _row(config: TrainConfig, spec: BenchSpec, say: Say) -> tuple[PresetRow, dict[str, Any]]:
    on_gpu = torch.cuda.is_available() and config.device != "cpu"
    backends = _backends(config, on_gpu)
    seconds: dict[str, float | None] = dict.fromkeys(backends)
    memory: dict[str, float | None] = dict.fromkeys(backends)
    gradients: dict[str, dict[str, Tensor]] = {}
    problem, parameters, steps, about = "", 0, spec.steps, {}
    for backend, setting in backends.items():
        try:
            with patience(say, f"{config.preset} with attention by {backend}"):
                step = Step(_with_backend(config, setting))
                about = provenance(step.runtime)
                parameters = sum(p.numel() for p in step.model.parameters())
                if "triton" in backends:
                    gradients[backend] = _gradients(step, spec)
                seconds[backend], memory[backend], measured = _measure(step, spec)
                steps = min(steps, measured)
        except torch.cuda.OutOfMemoryError:
            problem = f"out of memory with {backend}"
        step = None
        if on_gpu:
            torch.cuda.empty_cache()
    known = [each for each in seconds.values() if each]
    difference = None
    if len(gradients) == 2:
        difference = _largest_difference(gradients["triton"], gradients["torch"])
    row = PresetRow(
        config.preset,
        parameters,
        spec.height,
        spec.width,
        spec.batch,
        seconds,
        spec.batch / min(known) if known else None,
        memory,
        steps,
        difference,
        problem,
    )
    return row, about


def _with_backend(config: TrainConfig, backend: str) -> TrainConfig:
    if not backend:
        return config
    return replace(config, model=replace(config.model, attention_backend=backend))  # type: ignore[call-arg]


def _measure(step: Step, spec: BenchSpec) -> tuple[float, float | None, int]:
    """Median seconds of a step, the peak of memory in GiB, and how many steps were measured."""
    device = step.runtime.device
    generator = torch.Generator().manual_seed(0)
    batch = synthetic_batch(spec, 0, step.config.model.n_classes, generator)
    batch = batch.to(device, step.config.model.pixels)

    def forward_and_backward() -> None:
        step.losses(step.forward(batch), batch).total.backward()
        step.optimizer.zero_grad(set_to_none=True)

    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    else:
        forget_peak()
    begun = time.monotonic()
    forward_and_backward()
    found = []
    while len(found) < spec.steps and (not found or time.monotonic() - begun < _LONG_S):
        cost = step.cost(forward_and_backward)
        found.append(cost.wall if on_gpu else cost.cpu)
    peak = torch.cuda.max_memory_allocated(device) if on_gpu else peak_bytes()
    return statistics.median(found), None if peak is None else peak / 2**30, len(found)


def _gradients(step: Step, spec: BenchSpec) -> dict[str, Tensor]:
    """Of a smooth loss of all predictions, without autocast, on the CPU."""
    device = step.runtime.device
    generator = torch.Generator().manual_seed(0)
    one = replace(spec, batch=1)
    batch = synthetic_batch(one, 0, step.config.model.n_classes, generator)
    batch = batch.to(device, step.config.model.pixels)
    step.runtime.seed_step("gradients")
    output: StudentOutput = step.model(batch.images, batch.mask, batch.truth)
    predictions = [*output.layers, *(output.one_to_many or [])]
    if output.denoising is not None:
        predictions += output.denoising.layers
    # the same for all queries: whoever is chosen as one of them hardly matters
    loss = sum((p.logits.sigmoid() ** 2).mean() + (p.boxes**2).mean() for p in predictions)
    torch.as_tensor(loss).backward()
    found = {
        name: parameter.grad.detach().float().cpu()
        for name, parameter in step.model.named_parameters()
        if parameter.grad is not None
    }
    step.optimizer.zero_grad(set_to_none=True)
    return found


def _largest_difference(ours: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    # relative to the parameter's own gradient, unless that is rounding beside the others
    floor = 1e-4 * max(float(each.norm()) for each in wanted.values())
    return max(
        float((ours[name] - each).norm()) / max(float(each.norm()), floor)
        for name, each in wanted.items()
    )
