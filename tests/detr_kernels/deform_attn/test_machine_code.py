"""What the kernels become on an H100, read from the machine code; needs triton, and no GPU.

A first line of defence for speed where no GPU is at hand: wide loads, one wide fire-and-forget
addition per four channels, no fences, no spills, and few instructions a sample.
"""

import re
from collections import Counter
from functools import cache

import pytest

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402
from triton.tools.disasm import get_sass  # noqa: E402

from detr_kernels.deform_attn import triton_backward, triton_forward  # noqa: E402
from detr_kernels.deform_attn.backend import interpreted  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(interpreted(), reason="the interpreter compiles nothing"),
]

POINTS = 4
KERNELS = {
    "forward": (triton_forward, "_forward_kernel"),
    "backward": (triton_backward, "_backward_kernel"),
}


@cache
def instructions(kernel: str, dtype: str, dim: int = 32, wide: bool = False) -> tuple[Counter, int]:
    """(opcode counts on sm_90, samples that one warp handles in one pass of the level loop)."""
    module, name = KERNELS[kernel]
    function = getattr(module, name)
    block_d = triton.next_power_of_2(dim)
    rows = module.ELEMENTS // block_d
    constants = {
        "H": 8, "D": dim, "L": 4, "P": POINTS, "UNROLL": POINTS,
        "BLOCK_R": rows, "BLOCK_D": block_d, "WIDE": wide,
    }  # fmt: skip
    types = {"value_ptr": f"*{dtype}", "output_ptr": f"*{dtype}", "grad_output_ptr": f"*{dtype}"}
    types |= {"shapes_ptr": "*i64", "S": "i32", "Q": "i32"}
    names = function.arg_names
    signature = {n: "constexpr" if n in constants else types.get(n, "*fp32") for n in names}
    source = ASTSource(
        function,
        signature,
        {(names.index(n),): value for n, value in constants.items()},
        {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if n.endswith("_ptr")},
    )
    compiled = triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options={"num_warps": module.NUM_WARPS}
    )
    opcodes = re.findall(
        r"\t(?:@!?U?P\w+ )?\s*([A-Z][A-Za-z0-9_.]*)", get_sass(compiled.asm["cubin"])
    )
    return Counter(opcodes), rows // module.NUM_WARPS * POINTS


def count(opcodes: Counter, *prefixes: str) -> int:
    return sum(n for opcode, n in opcodes.items() if opcode.startswith(prefixes))


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_no_spills_fences_or_barriers(kernel, dtype):
    opcodes, _ = instructions(kernel, dtype)
    assert opcodes.total() > 300
    for prefix in ("LDL", "STL", "MEMBAR", "ERRBAR", "CCTL", "BAR", "ATOM"):
        assert count(opcodes, prefix) == 0, prefix


@pytest.mark.parametrize(("dtype", "loads"), [("bf16", 16), ("fp32", 32)])
def test_forward_reads_16_bytes_a_thread(dtype, loads):
    # 4 points x 4 corners, twice the registers in fp32
    opcodes, samples = instructions("forward", dtype)
    assert count(opcodes, "LDG.E.128") == loads
    assert opcodes.total() / samples < (24 if dtype == "bf16" else 28)


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_backward_adds_16_bytes_a_thread(dtype):
    opcodes, samples = instructions("backward", dtype)
    reductions = {o: n for o, n in opcodes.items() if o.startswith("RED")}
    assert sum(reductions.values()) == 16
    assert all("F32x4" in opcode for opcode in reductions), reductions
    # the corners and grad_output
    assert count(opcodes, "LDG.E.128" if dtype == "fp32" else "LDG.E.64") == 17
    assert opcodes.total() / samples < 66


def test_64_bit_offsets_compile():
    opcodes, _ = instructions("backward", "bf16", wide=True)
    assert count(opcodes, "LDL", "STL") == 0


def test_odd_channels_compile():
    opcodes, _ = instructions("forward", "bf16", dim=30)
    assert count(opcodes, "LDL", "STL") == 0
