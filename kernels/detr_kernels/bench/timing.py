"""Timing in turns: forward, backward and both of every contender, over rotating inputs.

No call finds its inputs in a cache: the sets of a contender are together at least twice as large as
the GPU's L2. On a GPU calls are timed by events, a burst at a time, behind a kernel that only
waits: the launches are all queued by the time the first begins, so that no time of the host
is in them. (What the host costs shows in a whole step; this is about kernels.)
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

import torch
from torch import Tensor

from detr_kernels.bench.contenders import Contender
from detr_kernels.shapes import FusedInputs, Inputs

MIN_SETS, MAX_SETS = 4, 32
CALLS_A_BURST = 8
# a GPU's clock, at most; the wait may be longer than asked for, never shorter
CYCLES_A_SECOND = 2_000_000_000


@dataclass(slots=True)
class Times:
    """Seconds of single calls."""

    forward: list[float] = field(default_factory=list)
    backward: list[float] = field(default_factory=list)
    both: list[float] = field(default_factory=list)

    def add(self, forward: float, backward: float) -> None:
        self.forward.append(forward)
        self.backward.append(backward)
        self.both.append(forward + backward)


def milliseconds(times: Sequence[float]) -> tuple[float, float]:
    """(median in ms, spread: 90th less 10th percentile, over the median)."""
    middle = median(times)
    deciles = quantiles(times, n=10, method="inclusive")
    return middle * 1e3, (deciles[-1] - deciles[0]) / middle


def sets_needed(bytes_a_set: int, device: torch.device) -> int:
    """How many input sets are twice the size of the L2 cache."""
    if device.type != "cuda":
        return MIN_SETS
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return min(MAX_SETS, max(MIN_SETS, -(-2 * cache // bytes_a_set)))


def step(contender: Contender, inputs: Inputs | FusedInputs) -> tuple[Tensor, ...]:
    """Output and gradients of one call."""
    output = contender.run(*inputs.arguments)
    return output, *torch.autograd.grad(output, inputs.leaves, inputs.grad_output)


def peak_mb(contender: Contender, inputs: Inputs | FusedInputs) -> float | None:
    """Memory that a warm forward and backward takes beyond its inputs, in MB; None on a CPU."""
    device = inputs.value.device
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step(contender, inputs)
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 1e6


def take_turns(
    runners: Sequence[Contender],
    sets: Sequence[Sequence[Inputs | FusedInputs]],
    device: torch.device,
    seconds: float,
) -> list[Times]:
    """Times of every runner over its sets: in turns, in both orders, `seconds` each on average.

    sets[i] belongs to runners[i], which has run before.
    """
    burst = _gpu_burst(device) if device.type == "cuda" else _cpu_burst
    times = [Times() for _ in runners]
    deadline = time.perf_counter() + seconds * len(runners)
    turn = 0
    while turn < 2 or time.perf_counter() < deadline:
        forth = range(len(runners))
        for i in forth if turn % 2 == 0 else reversed(forth):
            n = min(CALLS_A_BURST, len(sets[i]))
            chosen = [sets[i][(turn * n + k) % len(sets[i])] for k in range(n)]
            burst(runners[i], chosen, times[i])
        turn += 1
    return times


Burst = Callable[[Contender, Sequence[Inputs | FusedInputs], Times], None]


def _cpu_burst(contender: Contender, sets: Sequence[Inputs | FusedInputs], times: Times) -> None:
    # of one thread the process's own time, which others on the machine do not lengthen
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for inputs in sets:
        start = clock()
        output = contender.run(*inputs.arguments)
        between = clock()
        torch.autograd.grad(output, inputs.leaves, inputs.grad_output)
        times.add(between - start, clock() - between)


def _gpu_burst(device: torch.device) -> Burst:
    host_seconds: dict[Contender, float] = {}

    def burst(contender: Contender, sets: Sequence[Inputs | FusedInputs], times: Times) -> None:
        # the first burst of a contender only finds how long the host takes to queue one
        known = contender in host_seconds
        torch.cuda.synchronize(device)
        if known:
            torch.cuda._sleep(int(1.5 * host_seconds[contender] * CYCLES_A_SECOND))
        start = time.perf_counter()
        events = [_queue(contender, inputs) for inputs in sets]
        queued = time.perf_counter() - start
        torch.cuda.synchronize(device)
        host_seconds[contender] = max(queued, host_seconds.get(contender, 0.0))
        if known:
            for before, between, after in events:
                forward = before.elapsed_time(between) / 1e3
                times.add(forward, between.elapsed_time(after) / 1e3)
        else:
            burst(contender, sets, times)

    return burst


def _queue(contender: Contender, inputs: Inputs | FusedInputs) -> list[torch.cuda.Event]:
    events = [torch.cuda.Event(enable_timing=True) for _ in range(3)]
    events[0].record()
    output = contender.run(*inputs.arguments)
    events[1].record()
    torch.autograd.grad(output, inputs.leaves, inputs.grad_output)
    events[2].record()
    return events
