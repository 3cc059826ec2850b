"""Time other launch parameters of the Triton kernels on the GPU at hand, and print the best.

    python -m detr_kernels.tune                          an encoder and a decoder in bf16
    python -m detr_kernels.tune --shapes enc5 --dtype float32

Nothing is stored: `TUNING` in deform_attn/triton_common.py is what the kernels take, and what this
prints goes there by hand, with the measurement beside it. Compiling takes a minute a dtype.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from detr_kernels.bench.contenders import Contender
from detr_kernels.bench.timing import milliseconds, sets_needed, step, take_turns
from detr_kernels.deform_attn.backend import HAS_TRITON
from detr_kernels.deform_attn.fused_op import deform_attn_fused
from detr_kernels.errors import BackendError, KernelError
from detr_kernels.shapes import SHAPES, Shape, make_fused_inputs

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
# (tile, blocks, warps, registers): one thing changed at a time, then tile and warps together
CANDIDATES = (
    (1024, 4, 1, 128),
    (1024, 1, 1, 128),
    (1024, 2, 1, 128),
    (1024, 8, 1, 128),
    (1024, 4, 1, 96),
    (1024, 4, 1, 168),
    (1024, 4, 1, 208),
    (1024, 4, 1, 255),
    (512, 4, 1, 128),
    (2048, 4, 2, 128),
    (2048, 4, 2, 255),
    (4096, 2, 4, 128),
    (4096, 2, 4, 255),
)


@contextmanager
def tuned(parameters: Sequence[int]) -> Iterator[None]:
    """Both kernels launch with `parameters`, the fields of `Tuning`, inside the block."""
    from detr_kernels.deform_attn.triton_common import TUNING, Tuning

    before = dict(TUNING)
    TUNING.update(dict.fromkeys(TUNING, Tuning(*parameters)))
    try:
        yield
    finally:
        TUNING.update(before)


def times(
    shape: Shape, dtype: torch.dtype, device: torch.device, seconds: float
) -> list[tuple[float, float]]:
    """(forward, backward) in ms of every candidate, locations as in training."""
    first = make_fused_inputs(shape, "local", dtype=dtype, device=device)
    size = sum(t.nbytes for t in first if isinstance(t, Tensor))
    sets = [first] + [
        make_fused_inputs(shape, "local", dtype=dtype, device=device, seed=seed)
        for seed in range(1, sets_needed(size, device))
    ]
    runners = [Contender(str(c), "module", dtype, _launcher(c)) for c in CANDIDATES]
    with tuned(CANDIDATES[0]):
        for runner in runners:
            step(runner, first)
        spent = take_turns(runners, [sets] * len(runners), device, seconds)
    return [(milliseconds(t.forward)[0], milliseconds(t.backward)[0]) for t in spent]


def _launcher(parameters: Sequence[int]) -> Callable[..., Tensor]:
    """The operator whose forward, and the backward that follows it, launch with `parameters`."""
    from detr_kernels.deform_attn.triton_common import TUNING, Tuning

    def run(value: Tensor, *rest: Any) -> Tensor:
        # the backward comes later, and before the next forward: it finds these, too
        TUNING.update(dict.fromkeys(TUNING, Tuning(*parameters)))
        return deform_attn_fused(value, *rest, backend="triton")

    return run


def report(name: str, dtype: str, spent: Sequence[tuple[float, float]]) -> str:
    """A table of the candidates, the best of each direction marked."""
    best = [min(column) for column in zip(*spent, strict=True)]
    lines = [f"{name}, {dtype}: tile, blocks, warps, registers; forward and backward in ms"]
    for candidate, row in zip(CANDIDATES, spent, strict=True):
        cells = "".join(
            f"{ms:10.4f}{'*' if ms == low else ' '}" for ms, low in zip(row, best, strict=True)
        )
        lines.append(f"  {candidate!s:24}{cells}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tuning; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m detr_kernels.tune",
        description="Time launch parameters of the Triton kernels on this GPU.",
    )
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["enc4", "dec4"])
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--seconds", type=float, default=1.0, help="timed calls a candidate")
    options = parser.parse_args(arguments)
    try:
        if not (torch.cuda.is_available() and HAS_TRITON):
            raise BackendError("tuning needs a CUDA device and triton: there is nothing to time")
        device = torch.device("cuda", torch.cuda.current_device())
        print(torch.cuda.get_device_name(device))
        for name in options.shapes:
            spent = times(SHAPES[name], DTYPES[options.dtype], device, options.seconds)
            print(report(name, options.dtype, spent), flush=True)
    except KernelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
