"""All contenders at one shape: times in turns, memory, and errors against fp64."""

import torch

from detr_kernels.bench.accuracy import errors
from detr_kernels.bench.contenders import BASELINE, Contender, Path
from detr_kernels.bench.roofline import least_bytes
from detr_kernels.bench.rows import FailureRow, OperatorRow
from detr_kernels.bench.timing import Times, milliseconds, peak_mb, sets_needed, step, take_turns
from detr_kernels.errors import KernelError
from detr_kernels.shapes import FusedInputs, Inputs, Law, Shape, make_fused_inputs, make_inputs

Sets = dict[torch.dtype, list[Inputs | FusedInputs]]


def measure(
    name: str,
    shape: Shape,
    law: Law,
    path: Path,
    runners: list[Contender],
    device: torch.device,
    *,
    seconds: float,
    copy_rate: float,
) -> list[OperatorRow | FailureRow]:
    """Rows of `runners`, the baseline last, about `seconds` of timed calls each.

    copy_rate: bytes a second that the roofline is drawn at. A peer that cannot run gets a
    FailureRow; of ours and of the baseline an error goes on up.
    """
    sets = _input_sets(shape, law, path, {runner.dtype for runner in runners}, device)
    failures: list[OperatorRow | FailureRow] = []
    able: list[Contender] = []
    for runner in runners:
        failure = _warm_up(runner, sets[runner.dtype][0])
        if failure is None:
            able.append(runner)
        else:
            dtype = _dtype_name(runner)
            failures.append(FailureRow(name, path, runner.name, dtype, failure))
    peaks = [peak_mb(runner, sets[runner.dtype][0]) for runner in able]
    times = take_turns(able, [sets[runner.dtype] for runner in able], device, seconds)
    baseline, base_peak = _medians(times[-1]), peaks[-1]
    rows: list[OperatorRow | FailureRow] = []
    for runner, spent, peak in zip(able, times, peaks, strict=True):
        inputs = sets[runner.dtype][0]
        medians = _medians(spent)
        spreads = [milliseconds(t)[1] for t in (spent.forward, spent.backward, spent.both)]
        least = [1e3 * n_bytes / copy_rate for n_bytes in least_bytes(inputs)]
        rows.append(
            OperatorRow(
                shape=name,
                law=law,
                path=path,
                contender=runner.name,
                dtype=_dtype_name(runner),
                forward_ms=medians[0],
                forward_spread=spreads[0],
                backward_ms=medians[1],
                backward_spread=spreads[1],
                both_ms=medians[2],
                both_spread=spreads[2],
                speedup_forward=baseline[0] / medians[0],
                speedup_backward=baseline[1] / medians[1],
                speedup_both=baseline[2] / medians[2],
                roofline_forward=least[0] / medians[0],
                roofline_backward=least[1] / medians[1],
                peak_mb=peak,
                peak_ratio=peak / base_peak if peak is not None and base_peak else None,
                errors=errors(runner, inputs),
                calls=len(spent.both),
            )
        )
    return rows + failures


def _input_sets(
    shape: Shape, law: Law, path: Path, dtypes: set[torch.dtype], device: torch.device
) -> Sets:
    make = make_inputs if path == "function" else make_fused_inputs
    sets: Sets = {}
    for dtype in dtypes:
        first = make(shape, law, dtype=dtype, device=device)
        n = sets_needed(least_bytes(first)[0], device)
        others = [make(shape, law, dtype=dtype, device=device, seed=i) for i in range(1, n)]
        sets[dtype] = [first, *others]
    return sets


def _warm_up(runner: Contender, inputs: Inputs | FusedInputs) -> str | None:
    """Compile and allocate. What a peer said if it cannot run; None if it can."""
    try:
        output, *_ = step(runner, inputs)
        if output.shape != inputs.grad_output.shape:
            raise KernelError(
                f"expected an output {list(inputs.grad_output.shape)}, got {list(output.shape)}"
            )
    except Exception as error:  # a peer may raise anything
        if runner.name.startswith(("ours", BASELINE)):
            raise
        return f"{type(error).__name__}: {error}"
    return None


def _medians(times: Times) -> tuple[float, float, float]:
    forward, backward, both = (
        milliseconds(t)[0] for t in (times.forward, times.backward, times.both)
    )
    return forward, backward, both


def _dtype_name(runner: Contender) -> str:
    return str(runner.dtype).removeprefix("torch.")
