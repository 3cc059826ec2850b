"""What the machine can do at most: memory copy, reads from L2, additions to memory.

Measured before anything is compared with them, in the same run. `ceiling_kernels` has the kernels.
"""

import time
from collections.abc import Callable, Iterator
from statistics import median

import torch

from detr_kernels.bench.rows import CeilingRow

REPEATS = 20
COPY_BYTES = {"cuda": 2**30, "cpu": 2**26}
L2_BYTES = 16 * 2**20
# value gradients in fp32: of two photos at 4 scales, and of one coarsest level (13 x 21 pixels)
ADDED_BYTES = {"an encoder's": 2 * 22223 * 256 * 4, "a coarse level's": 273 * 256 * 4}


def ceilings(device: torch.device) -> Iterator[CeilingRow]:
    """The rates of `device` as they are measured: "memory copy" first, of a CPU that one alone."""
    rate = copy_rate(device)
    how = f"{COPY_BYTES[device.type] / 2**20:.0f} MiB to another buffer, read and written counted"
    yield CeilingRow("memory copy", rate / 1e9, "GB/s", how)
    if device.type != "cuda":
        return
    from detr_kernels.bench import ceiling_kernels

    source = torch.zeros(L2_BYTES // 4, device=device)
    sink = torch.zeros(ceiling_kernels.READ_PROGRAMS, device=device)
    seconds = _gpu_seconds(lambda: ceiling_kernels.read(source, sink), device)
    n_bytes = ceiling_kernels.READ_PROGRAMS * L2_BYTES
    how = f"{L2_BYTES / 2**20:.0f} MiB over and over, past L1, 16 bytes a thread"
    yield CeilingRow("L2 read", n_bytes / seconds / 1e9, "GB/s", how)
    for whose, size in ADDED_BYTES.items():
        target = torch.zeros(size // 4, device=device)
        seconds = _gpu_seconds(lambda target=target: ceiling_kernels.add(target), device)
        rate = ceiling_kernels.ADDED_ROWS * ceiling_kernels.ROW * 4 / seconds
        how = (
            f"relaxed fp32 additions of 16 bytes a thread, 128-byte rows at random in {whose} "
            f"gradient, {size / 1e6:.1f} MB"
        )
        yield CeilingRow(f"vector atomics, {whose}", rate / 1e9, "GB/s", how)


def copy_rate(device: torch.device) -> float:
    """Bytes a second, read and written together, of a copy that no cache holds."""
    n_bytes = COPY_BYTES[device.type]
    source = torch.zeros(n_bytes // 4, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)

    if device.type == "cuda":
        return 2 * n_bytes / _gpu_seconds(copy, device)
    return 2 * n_bytes / _cpu_seconds(copy)


def _cpu_seconds(run: Callable[[], None]) -> float:
    run()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return median(times)


def _gpu_seconds(run: Callable[[], None], device: torch.device) -> float:
    for _ in range(3):
        run()
    pairs = []
    for _ in range(REPEATS):
        pair = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        pair[0].record()
        run()
        pair[1].record()
        pairs.append(pair)
    torch.cuda.synchronize(device)
    return median(before.elapsed_time(after) for before, after in pairs) / 1e3
