"""Two Triton kernels that do nothing but what they measure: read from L2, add to memory."""

# the body of a kernel is Triton's language, which type checkers read as Python
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
# pyright: reportArgumentType=false

import torch
import triton
import triton.language as tl
from torch import Tensor

READ_PROGRAMS = 528  # 4 for each multiprocessor of an H100
READ_BLOCK = 4096
# rows that `add` adds to: about what one encoder layer's backward at 4 scales does
ADDED_ROWS = 2**24
ROW = 32  # floats, a head's channels
ROWS_A_PROGRAM = 64
# 8 threads a row, one warp
ADD_CONSTANTS = {"BLOCK_R": 4, "STEPS": ROWS_A_PROGRAM // 4}
ADD_WARPS = 1


def read(source: Tensor, sink: Tensor) -> None:
    """Every program reads all of source (fp32, a multiple of READ_BLOCK long), from a place of its
    own on; its sum goes to sink [programs].
    """
    with torch.cuda.device_of(source):
        _read_kernel[(sink.numel(),)](source, sink, source.numel() // READ_BLOCK, BLOCK=READ_BLOCK)


def add(target: Tensor, rows: int = ADDED_ROWS) -> None:
    """Add one to `rows` rows of 32 floats of target (fp32, contiguous), as good as at random."""
    with torch.cuda.device_of(target):
        grid = (triton.cdiv(rows, ROWS_A_PROGRAM),)
        _add_kernel[grid](target, target.numel() // ROW, **ADD_CONSTANTS, num_warps=ADD_WARPS)


@triton.jit
def _read_kernel(source_ptr, sink_ptr, blocks, BLOCK: tl.constexpr):
    program = tl.program_id(0)
    place = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    # programs begin apart, so that those of one multiprocessor share nothing in L1
    block = (program * 97) % blocks
    for _ in range(blocks):
        total += tl.load(source_ptr + block * BLOCK + place, cache_modifier=".cg")
        block = tl.where(block + 1 == blocks, 0, block + 1)
    tl.store(sink_ptr + program, tl.sum(total, axis=0))


@triton.jit(do_not_specialize=["n_rows"])
def _add_kernel(target_ptr, n_rows, BLOCK_R: tl.constexpr, STEPS: tl.constexpr):
    channel = tl.arange(0, 32)
    ones = tl.full([BLOCK_R, 32], 1.0, dtype=tl.float32)
    for step in range(STEPS):
        index = (tl.program_id(0) * STEPS + step) * BLOCK_R + tl.arange(0, BLOCK_R)
        # the high bits of a product with an odd number: no order, and hardly any cost
        mixed = (index.to(tl.uint32) * 2654435761) >> 7
        row = (mixed % n_rows.to(tl.uint32)).to(tl.int32)
        tl.atomic_add(target_ptr + (row * 32)[:, None] + channel[None, :], ones, sem="relaxed")
