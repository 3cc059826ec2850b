"""What the kernels become on an H100, read from the machine code; needs triton, and no GPU.

A first line of defence for speed where no GPU is at hand: wide loads, one wide fire-and-forget
addition per four channels, no fences, no spills, and few instructions a sample.
"""

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import cache

import pytest

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from detr_kernels.deform_attn import triton_backward, triton_forward  # noqa: E402
from detr_kernels.deform_attn.backend import interpreted  # noqa: E402
from detr_kernels.deform_attn.triton_common import TUNING, block_sizes  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(interpreted(), reason="the interpreter compiles nothing"),
]

HEADS, LEVELS, POINTS = 8, 4, 4
KERNELS = {
    "forward": triton_forward._forward_kernel,
    "backward": triton_backward._backward_kernel,
}
LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*);")


@dataclass(frozen=True)
class Code:
    """Opcodes of one kernel, and what it executes for one sample of the warp's eight rows."""

    opcodes: Counter
    per_sample: float

    def count(self, *prefixes: str) -> int:
        return sum(n for opcode, n in self.opcodes.items() if opcode.startswith(prefixes))


@cache
def code(kernel: str, dtype: str, *, fused: str = "", dim: int = 32, wide: bool = False, **more):
    """Compile for sm_90: `fused` is "", "points" or "boxes"; dtype is value's."""
    function = KERNELS[kernel]
    size = 4 if dtype == "fp32" else 2
    tuning = TUNING[kernel, size]
    blocks = block_sizes(dim, size, POINTS, tuning.tile)
    samples = HEADS * LEVELS * POINTS
    constants = {
        "COORDINATE_STRIDE": samples * (3 if fused else 2),
        "SCORE_STRIDE": samples * (3 if fused else 1),
        "COLUMNS": 2, "FUSED": bool(fused), "BOX": fused == "boxes",
        "NEEDS_REFERENCE": fused == "boxes",
        "DETERMINISTIC": False, "H": HEADS, "D": dim, "L": LEVELS, "P": POINTS, "WIDE": wide,
    } | blocks | more  # fmt: skip
    names = function.arg_names
    types = {n: "*fp32" if n.endswith("_ptr") else "i32" for n in names}
    types |= {n: f"*{dtype}" for n in ("value_ptr", "output_ptr", "grad_output_ptr")}
    types |= {"shapes_ptr": "*i64", "corner_pixels_ptr": "*i32"}
    source = ASTSource(
        function,
        {n: "constexpr" if n in constants else types[n] for n in names},
        {(names.index(n),): value for n, value in constants.items() if n in names},
        {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if n.endswith("_ptr")},
    )
    target = GPUTarget("cuda", 90, 32)
    options = {"num_warps": tuning.warps, "maxnreg": tuning.registers}
    compiled = triton.compile(source, target=target, options=options)
    return _read(compiled.asm["cubin"], blocks["BLOCK_R"])


def _read(cubin: bytes, rows: int) -> Code:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-sass", file.name]
        listing = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    lines = [(int(a, 16), opcode, rest) for a, opcode, rest in LINE.findall(listing)]
    lines = [line for line in lines if line[1] != "NOP"]
    # a branch backwards closes a loop; the longest without another inside is that over the levels
    branches = [(int(m[1], 16), a) for a, opcode, rest in lines
                if opcode == "BRA" and (m := re.search(r"0x([0-9a-f]+)", rest))]  # fmt: skip
    loops = [(low, high) for low, high in branches if low < high]
    inner = [a for a in loops if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    body = max(sum(low <= line[0] <= high for line in lines) for low, high in inner)
    executed = len(lines) + (LEVELS - 1) * body
    return Code(Counter(line[1] for line in lines), executed / (rows * LEVELS * POINTS))


CASES = [
    (kernel, dtype, fused)
    for kernel in KERNELS
    for dtype in ("bf16", "fp32")
    for fused in ("", "points", "boxes")
]


@pytest.mark.parametrize(("kernel", "dtype", "fused"), CASES)
def test_no_spills_and_no_fences(kernel, dtype, fused):
    found = code(kernel, dtype, fused=fused)
    assert found.opcodes.total() > 300
    for prefix in ("LDL", "STL", "MEMBAR", "ERRBAR", "CCTL", "ATOM"):
        assert found.count(prefix) == 0, prefix


@pytest.mark.parametrize(
    ("kernel", "dtype", "fused", "bound"),
    [
        ("forward", "bf16", "", 17),
        ("forward", "fp32", "", 13),
        ("backward", "bf16", "", 40),
        ("backward", "fp32", "", 44),
        # softmax and locations in, their own kernels out
        ("forward", "bf16", "points", 19),
        ("forward", "fp32", "points", 15),
        ("forward", "bf16", "boxes", 19),
        ("forward", "fp32", "boxes", 15),
        ("backward", "bf16", "points", 43),
        ("backward", "fp32", "points", 47),
        # the reference's gradient too
        ("backward", "bf16", "boxes", 45),
        ("backward", "fp32", "boxes", 50),
    ],
)
def test_few_instructions_a_sample(kernel, dtype, fused, bound):
    assert 5 < code(kernel, dtype, fused=fused).per_sample <= bound


@pytest.mark.parametrize(("dtype", "pieces"), [("bf16", 1), ("fp32", 2)])
@pytest.mark.parametrize("fused", ["", "points"])
def test_pixels_are_read_16_bytes_a_lane(dtype, pieces, fused):
    # 4 points x 4 corners of 8 rows, in 4 lanes of 8 channels each
    assert code("forward", dtype, fused=fused).count("LDG.E.128") == 16 * pieces
    # and the rows of grad_output
    assert code("backward", dtype, fused=fused).count("LDG.E.128") >= 17 * pieces


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("fused", ["", "points"])
def test_gradients_are_added_16_bytes_a_lane(dtype, fused):
    opcodes = code("backward", dtype, fused=fused).opcodes
    reductions = {opcode: n for opcode, n in opcodes.items() if opcode.startswith("RED")}
    assert sum(reductions.values()) == 32
    assert all("F32x4" in opcode for opcode in reductions), reductions


def test_barriers_wait_for_nobody():
    # lanes pass samples through shared memory, and a barrier of one warp is no wait
    assert all(tuning.warps == 1 for tuning in TUNING.values())


@pytest.mark.parametrize("kernel", KERNELS)
def test_64_bit_offsets_compile(kernel):
    assert code(kernel, "bf16", wide=True).count("LDL", "STL") == 0


@pytest.mark.parametrize("dim", [16, 30, 64, 128])
@pytest.mark.parametrize("kernel", KERNELS)
def test_other_widths_do_not_spill(kernel, dim):
    assert code(kernel, "bf16", dim=dim).count("LDL", "STL") == 0


def test_deterministic_mode_has_no_atomics():
    assert code("backward", "bf16", DETERMINISTIC=True).count("RED", "ATOM") == 0
