"""Verify deformable attention on this machine: one line a check, exit code 1 if any fails.

    python -m detr_kernels.check              the GPU where there is one, else the CPU
    python -m detr_kernels.check --json       the outcomes as JSON, nothing else on stdout

On a GPU: the kernels against fp64, fused against unfused, determinism, torch's own checks, no
waiting, CUDA graphs, streams. On a CPU: the torch implementation likewise, and the kernels under
Triton's interpreter, in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from detr_kernels.bench.rows import origin
from detr_kernels.check.numbers import number_checks
from detr_kernels.check.outcome import Outcome, run
from detr_kernels.check.torch_side import gpu_checks, torch_checks
from detr_kernels.deform_attn.backend import HAS_TRITON, choose_backend, explain, interpreted

# of the process that runs the kernels under the interpreter
INTERPRETER_LIMIT_S = 900


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m detr_kernels.check",
        description="Verify deformable attention on this machine.",
    )
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON alone")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the outcomes as JSON too")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args(arguments)
    has_gpu = torch.cuda.is_available()
    if options.device == "cuda" and not has_gpu:
        print("error: --device cuda: torch sees no CUDA device; use --device cpu", file=sys.stderr)
        return 1
    device = torch.device("cuda" if has_gpu and options.device != "cpu" else "cpu")
    log = sys.stderr if options.json else sys.stdout
    print(explain(device), file=log)
    outcomes: list[Outcome] = []
    for outcome in _outcomes(device):
        print(outcome.line(), file=log, flush=True)
        outcomes.append(outcome)
    failed = sum(outcome.result == "failed" for outcome in outcomes)
    print(f"{len(outcomes)} checks, {failed} failed", file=log)
    report = {"checks": [asdict(outcome) for outcome in outcomes], **asdict(origin(device))}
    if options.json:
        print(json.dumps(report, indent=1))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if failed else 0


def _outcomes(device: torch.device) -> Iterator[Outcome]:
    if interpreted():
        obstacle = _interpreter_obstacle()
        if obstacle:
            yield Outcome("kernels", "skipped", obstacle, 0.0)
        else:
            yield from run([*number_checks(device, "triton")])
        return
    backend = choose_backend(device)[0]
    yield from run([*number_checks(device, backend), *torch_checks(device, backend)])
    if device.type == "cuda":
        yield from run([*gpu_checks(device, backend)])
    else:
        yield from _under_interpreter()


def _interpreter_obstacle() -> str:
    """Why the interpreter itself does not work here, or nothing: some pairs of triton and NumPy."""
    import numpy
    import triton
    from triton.runtime.errors import InterpreterError

    from detr_kernels.bench import ceiling_kernels

    try:
        ceiling_kernels.read(torch.zeros(ceiling_kernels.READ_BLOCK), torch.zeros(1))
    except InterpreterError as error:
        return (
            f"the interpreter of triton {triton.__version__} fails on a plain loop, with NumPy "
            f"{numpy.__version__}: {error}"
        )
    return ""


def _under_interpreter() -> Iterator[Outcome]:
    """The kernels' numbers on CPU tensors: the interpreter is chosen when triton is imported."""
    if not HAS_TRITON:
        yield Outcome("kernels under the interpreter", "skipped", "triton is not installed", 0.0)
        return
    done = subprocess.run(
        [sys.executable, "-m", "detr_kernels.check", "--json", "--device", "cpu"],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=INTERPRETER_LIMIT_S,
        check=False,
    )
    try:
        checks = json.loads(done.stdout)["checks"]
    except ValueError:
        tail = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        yield Outcome("kernels under the interpreter", "failed", tail[0], 0.0)
        return
    for check in checks:
        yield Outcome(**check | {"name": f"interpreter: {check['name']}"})


if __name__ == "__main__":
    sys.exit(main())
