"""What the first call costs: a fresh process with an empty and with a filled compiler cache."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import torch

from detr_kernels.bench.rows import FirstCallRow
from detr_kernels.deform_attn.fused_op import deform_attn_fused
from detr_kernels.deform_attn.op import deform_attn
from detr_kernels.errors import KernelError
from detr_kernels.shapes import SHAPES, make_fused_inputs, make_inputs

LIMIT_S = 600


def first_calls() -> Iterator[FirstCallRow]:
    """On the current GPU, path by path: with an empty cache of compiled kernels, then a filled one.

    Raises KernelError where the process that measures fails.
    """
    with tempfile.TemporaryDirectory() as cache:
        for state in ("empty", "filled"):
            done = subprocess.run(
                [sys.executable, "-m", "detr_kernels.bench.first_call"],
                env=os.environ | {"TRITON_CACHE_DIR": cache},
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
            if done.returncode != 0:
                raise KernelError(f"the first call failed in a fresh process:\n{done.stderr}")
            for path, seconds in json.loads(done.stdout).items():
                yield FirstCallRow(state, path, seconds)


def measure(device: torch.device) -> dict[str, float]:
    """Seconds of this process's first forward and backward on each path, bf16 values."""
    small = SHAPES["small"]
    seconds: dict[str, float] = {}
    for path, make, run in (
        ("function", make_inputs, deform_attn),
        ("module", make_fused_inputs, deform_attn_fused),
    ):
        inputs = make(small, dtype=torch.bfloat16, device=device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        output = run(*inputs.arguments)
        torch.autograd.grad(output, inputs.leaves, inputs.grad_output)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds[path] = time.perf_counter() - start
    return seconds


if __name__ == "__main__":
    print(json.dumps(measure(torch.device("cuda" if torch.cuda.is_available() else "cpu"))))
