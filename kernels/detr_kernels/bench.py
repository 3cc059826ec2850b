"""Time deformable attention beside the grid_sample composition.

    python -m detr_kernels.bench                 the table, on the GPU where there is one
    python -m detr_kernels.bench --json          the rows as JSON
    python -m detr_kernels.bench --out FILE      the table, and the rows as JSON in FILE

Contenders run in one process, in turns and in both orders, over several input sets, so that none
finds its inputs in a cache. Every time is the median of single calls; forward and backward apart.
Every row carries the error against fp64 on the same inputs, the device, the versions and the
commit.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import cast

import torch
from torch import Tensor

from detr_kernels.deform_attn.backend import choose_backend, explain
from detr_kernels.deform_attn.op import deform_attn
from detr_kernels.deform_attn.reference import deform_attn_reference
from detr_kernels.errors import BackendError, KernelError
from detr_kernels.shapes import (
    CPU_SHAPES,
    GPU_SHAPES,
    LAWS,
    SHAPES,
    Inputs,
    Law,
    Shape,
    make_inputs,
)

INPUT_SETS = 4
# queries that the fp64 comparison covers: all of an encoder's would fill the GPU
CHECKED_QUERIES = 2048
# 4 x 256 MB of zeros before a timed call: empties L2, and the launches queue up meanwhile
FLUSH_BYTES, FLUSHES = 2**28, 4


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to compute the operator; `dtype` is that of value and output."""

    name: str
    dtype: torch.dtype
    run: Callable[[Inputs], Tensor]


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement. Times in ms, memory in MB, errors relative (RMS) to fp64."""

    shape: str
    law: str
    contender: str
    dtype: str
    forward_ms: float
    backward_ms: float
    speedup: float
    peak_mb: float | None
    error_output: float
    error_grad_value: float
    error_grad_locations: float
    error_grad_weights: float
    calls: int
    device: str
    versions: dict[str, str]
    commit: str
    date: str


def contenders(device: torch.device) -> list[Contender]:
    """Ours in every dtype that pays on `device`, and the grid_sample composition last."""
    backend = choose_backend(device)[0]

    def ours(inputs: Inputs) -> Tensor:
        return deform_attn(*inputs[:4], backend=backend)

    def grid_sample(inputs: Inputs) -> Tensor:
        return deform_attn_reference(*inputs[:4])

    def grid_sample_cast(inputs: Inputs) -> Tensor:
        output = deform_attn_reference(inputs.value.float(), *inputs[1:4])
        return output.to(inputs.value.dtype)

    listed = [Contender(f"ours ({backend})", torch.float32, ours)]
    if device.type == "cuda":
        listed.append(Contender(f"ours ({backend})", torch.bfloat16, ours))
        # how mixed precision runs operators that lack bf16: cast in, cast out
        listed.append(Contender("grid_sample, cast", torch.bfloat16, grid_sample_cast))
    listed.append(Contender("grid_sample", torch.float32, grid_sample))
    return listed


def measure(
    name: str, shape: Shape, law: Law, device: torch.device, seconds: float = 2.0
) -> list[Row]:
    """Rows of all contenders at one shape, about `seconds` of timed calls each."""
    runners = contenders(device)
    inputs = {
        dtype: [
            make_inputs(shape, law, dtype=dtype, device=device, seed=seed)
            for seed in range(INPUT_SETS)
        ]
        for dtype in {runner.dtype for runner in runners}
    }
    clock = _gpu_clock(device) if device.type == "cuda" else _cpu_clock
    peaks = [_warm_up(runner, inputs[runner.dtype][0], device) for runner in runners]
    times: list[list[tuple[float, float]]] = [[] for _ in runners]
    deadline = time.perf_counter() + seconds * len(runners)
    call = 0
    while call < 2 * INPUT_SETS or time.perf_counter() < deadline:
        order = range(len(runners)) if call % 2 == 0 else reversed(range(len(runners)))
        for i in order:
            sets = inputs[runners[i].dtype]
            times[i].append(clock(runners[i], sets[call % INPUT_SETS]))
        call += 1
    medians = [tuple(median(part) for part in zip(*list_, strict=True)) for list_ in times]
    slowest = sum(medians[-1])
    provenance = _provenance(device)
    return [
        Row(
            name,
            law,
            runner.name,
            str(runner.dtype).removeprefix("torch."),
            forward * 1e3,
            backward * 1e3,
            slowest / (forward + backward),
            peak,
            *_errors(runner, shape, law, device),
            call,
            *provenance,
        )
        for runner, (forward, backward), peak in zip(runners, medians, peaks, strict=True)
    ]


def _warm_up(runner: Contender, inputs: Inputs, device: torch.device) -> float | None:
    """Compile and allocate; the peak memory beyond the inputs in MB, on a GPU."""
    torch.autograd.grad(runner.run(inputs), inputs.leaves, inputs.grad_output)
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    torch.autograd.grad(runner.run(inputs), inputs.leaves, inputs.grad_output)
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 1e6


def _cpu_clock(runner: Contender, inputs: Inputs) -> tuple[float, float]:
    start = time.perf_counter()
    output = runner.run(inputs)
    between = time.perf_counter()
    torch.autograd.grad(output, inputs.leaves, inputs.grad_output)
    return between - start, time.perf_counter() - between


def _gpu_clock(device: torch.device) -> Callable[[Contender, Inputs], tuple[float, float]]:
    flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=device)

    def clock(runner: Contender, inputs: Inputs) -> tuple[float, float]:
        events = [torch.cuda.Event(enable_timing=True) for _ in range(3)]
        for _ in range(FLUSHES):
            flush.zero_()
        events[0].record()
        output = runner.run(inputs)
        events[1].record()
        torch.autograd.grad(output, inputs.leaves, inputs.grad_output)
        events[2].record()
        torch.cuda.synchronize(device)
        forward = events[0].elapsed_time(events[1])
        return forward / 1e3, events[1].elapsed_time(events[2]) / 1e3

    return clock


def _errors(
    runner: Contender, shape: Shape, law: Law, device: torch.device
) -> tuple[float, float, float, float]:
    """Relative RMS errors of output and gradients against fp64, on the first queries."""
    inputs = make_inputs(shape, law, dtype=runner.dtype, device=device)
    few = slice(0, CHECKED_QUERIES)
    value, shapes, locations, weights, grad_output = inputs
    part = Inputs(
        value.detach().requires_grad_(),
        shapes,
        locations.detach()[:, few].contiguous().requires_grad_(),
        weights.detach()[:, few].contiguous().requires_grad_(),
        grad_output[:, few].contiguous(),
    )
    doubled = [leaf.detach().double().requires_grad_() for leaf in part.leaves]
    exact = Inputs(doubled[0], shapes, doubled[1], doubled[2], part.grad_output.double())
    output, truth = runner.run(part), deform_attn_reference(*exact[:4])
    found = (output.detach(), *torch.autograd.grad(output, part.leaves, part.grad_output))
    wanted = (truth.detach(), *torch.autograd.grad(truth, exact.leaves, exact.grad_output))
    errors = tuple(
        ((a.double() - b).norm() / b.norm()).item() for a, b in zip(found, wanted, strict=True)
    )
    return cast(tuple[float, float, float, float], errors)


def _provenance(device: torch.device) -> tuple[str, dict[str, str], str, str]:
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    try:
        import triton

        versions["triton"] = triton.__version__
    except ImportError:
        versions["triton"] = "not installed"
    return name, versions, _commit(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _commit() -> str:
    """The checkout's commit, with + where files differ from it; "unknown" for an installed copy."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + (
            "+" if git("status", "--porcelain", "--", ".") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def table(rows: Sequence[Row]) -> str:
    """The rows as text, one block a shape and law."""
    lines: list[str] = []
    heading = None
    for row in rows:
        if (row.shape, row.law) != heading:
            heading = (row.shape, row.law)
            lines.append(f"\n{row.shape}, {row.law} locations")
            lines.append(
                f"  {'':22} {'dtype':9} {'forward':>10} {'backward':>10} {'speed-up':>8} "
                f"{'peak':>8}  error: output, gradients"
            )
        peak = "" if row.peak_mb is None else f"{row.peak_mb:.0f} MB"
        gradients = max(row.error_grad_value, row.error_grad_locations, row.error_grad_weights)
        lines.append(
            f"  {row.contender:22} {row.dtype:9} {row.forward_ms:7.3f} ms "
            f"{row.backward_ms:7.3f} ms {row.speedup:7.2f}x {peak:>8}  "
            f"{row.error_output:.1e}, {gradients:.1e}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m detr_kernels.bench",
        description="Time deformable attention beside the grid_sample composition.",
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON, nothing else")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the rows to FILE as JSON")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--shapes",
        nargs="+",
        choices=SHAPES,
        metavar="NAME",
        help=f"of {', '.join(SHAPES)}; default: those that suit the device",
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="timed calls a contender")
    options = parser.parse_args(arguments)
    try:
        rows = _run(options)
    except (KernelError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    return 0


def _run(options: argparse.Namespace) -> list[Row]:
    has_gpu = torch.cuda.is_available()
    if options.device == "cuda" and not has_gpu:
        raise BackendError("--device cuda: torch sees no CUDA device; use --device cpu")
    device = torch.device("cuda" if has_gpu and options.device != "cpu" else "cpu")
    names = options.shapes or (GPU_SHAPES if device.type == "cuda" else CPU_SHAPES)
    if options.out is not None:
        # before the minutes of measuring, not after
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.touch()
    log = sys.stderr if options.json else sys.stdout
    if device.type == "cpu":
        print("no GPU in use: timing the CPU path on small shapes", file=log)
    print(explain(device), file=log)
    rows: list[Row] = []
    for name in names:
        for law in LAWS:
            measured = measure(name, SHAPES[name], law, device, options.seconds)
            print(table(measured), file=log, flush=True)
            rows += measured
    if options.out is not None:
        options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
        print(f"\n{len(rows)} rows in {options.out}", file=log)
    return rows


if __name__ == "__main__":
    sys.exit(main())
