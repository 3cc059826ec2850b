"""Time deformable attention beside the grid_sample composition and other implementations.

    python -m detr_kernels.bench                 the tables, on the GPU where there is one
    python -m detr_kernels.bench --json          the rows as JSON, nothing else on stdout
    python -m detr_kernels.bench --out FILE      the tables, and the rows as JSON in FILE
    python -m detr_kernels.bench --peer module:function    beside another implementation too

First the machine's own limits, then the cost of the first call, then every shape.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from detr_kernels.bench.ceilings import ceilings
from detr_kernels.bench.contenders import PATHS, contenders, load_peer
from detr_kernels.bench.first_call import first_calls
from detr_kernels.bench.measure import measure
from detr_kernels.bench.report import show
from detr_kernels.bench.rows import FailureRow, Row, flat, origin
from detr_kernels.deform_attn.backend import choose_backend, explain
from detr_kernels.errors import BackendError, KernelError
from detr_kernels.shapes import CPU_SHAPES, GPU_SHAPES, LAWS, SHAPES

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code, 1 where something could not run."""
    options = _parser().parse_args(arguments)
    log = sys.stderr if options.json else sys.stdout
    rows: list[Row] = []
    try:
        device = _device(options.device)
        if options.out is not None:
            # before the minutes of measuring, not after
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.touch()
        if device.type == "cpu":
            print("no GPU in use: timing the CPU path on small shapes", file=log)
        print(explain(device), file=log)
        for measured in _measurements(options, device):
            show(measured, log)
            rows += measured
            # what is measured stays, whatever comes after
            _write(rows, device, options.out)
    except (KernelError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps([flat(row, origin(device)) for row in rows], indent=1))
    if options.out is not None:
        print(f"\n{len(rows)} rows in {options.out}", file=log)
    return 1 if any(isinstance(row, FailureRow) for row in rows) else 0


def _measurements(options: argparse.Namespace, device: torch.device) -> Iterator[list[Row]]:
    """Groups of rows that belong together, as they come."""
    peers = {name: load_peer(name) for name in options.peer}
    limits = []
    for row in ceilings(device):
        limits.append(row)
        yield [row]
    copy_rate = limits[0].rate * 1e9
    if device.type == "cuda":
        for row in first_calls():
            yield [row]
    on_gpu = device.type == "cuda"
    backends = [choose_backend(device)[0]]
    if backends == ["numba"]:
        # what runs where the extra is missing
        backends.append("torch")
    dtypes = options.dtypes or (("float32", "bfloat16") if on_gpu else ("float32",))
    names = options.shapes or (GPU_SHAPES if on_gpu else CPU_SHAPES)
    for name in names:
        for path in options.paths:
            runners = contenders(path, backends, [DTYPES[d] for d in dtypes], peers)
            for law in options.laws:
                yield list(
                    measure(
                        name,
                        SHAPES[name],
                        law,
                        path,
                        runners,
                        device,
                        seconds=options.seconds,
                        copy_rate=copy_rate,
                    )
                )


def _device(name: str) -> torch.device:
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise BackendError("--device cuda: torch sees no CUDA device; use --device cpu")
    if has_gpu and name != "cpu":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _write(rows: Sequence[Row], device: torch.device, out: Path | None) -> None:
    if out is not None:
        source = origin(device)
        out.write_text(json.dumps([flat(row, source) for row in rows], indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m detr_kernels.bench",
        description="Time deformable attention beside the grid_sample composition and peers.",
    )
    add = parser.add_argument
    add("--json", action="store_true", help="print the rows as JSON, nothing else")
    add("--out", type=Path, metavar="FILE", help="write the rows to FILE as JSON")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add(
        "--shapes",
        nargs="+",
        choices=SHAPES,
        metavar="NAME",
        help=f"of {', '.join(SHAPES)}; default: those that suit the device",
    )
    add("--paths", nargs="+", choices=PATHS, default=PATHS, help="where to begin; default: both")
    add("--laws", nargs="+", choices=LAWS, default=LAWS, help="of locations; default: both")
    add(
        "--dtypes",
        nargs="+",
        choices=DTYPES,
        help="of values; default: float32, on a GPU bfloat16 too",
    )
    add(
        "--peer",
        action="append",
        default=[],
        metavar="MODULE:FUNCTION",
        help="time this too: a function of value, spatial_shapes, sampling_locations and "
        "attention_weights, as deform_attn; may be repeated",
    )
    add("--seconds", type=float, default=1.0, help="of timed calls for each contender")
    return parser


if __name__ == "__main__":
    sys.exit(main())
