"""The kernels behind the ceilings do what their rates count, 16 bytes a thread on sm_90."""

import re

import pytest
import torch

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402
from triton.tools.disasm import get_sass  # noqa: E402

from detr_kernels.bench import ceiling_kernels as kernels  # noqa: E402
from detr_kernels.deform_attn.backend import interpreted  # noqa: E402


def on_a_cpu(test):
    """In the interpreter's process, which deform_attn/test_interpreter.py starts."""
    without = pytest.mark.skipif(not interpreted(), reason="needs Triton's interpreter")
    return pytest.mark.interpreter(without(test))


@on_a_cpu
def test_every_program_reads_everything():
    source = torch.arange(3 * kernels.READ_BLOCK, dtype=torch.float32) % 5
    sink = torch.zeros(4)
    kernels.read(source, sink)
    assert sink.tolist() == [source.sum().item()] * 4


@on_a_cpu
def test_every_row_is_added_somewhere():
    target = torch.zeros(7 * kernels.ROW)
    kernels.add(target, rows=2 * kernels.ROWS_A_PROGRAM)
    rows = target.view(7, kernels.ROW)
    assert target.sum() == 2 * kernels.ROWS_A_PROGRAM * kernels.ROW
    assert torch.equal(rows, rows[:, :1].expand_as(rows))
    assert (rows[:, 0] > 0).all()


def opcodes(function, signature, constants, **options):
    names = function.arg_names
    source = ASTSource(
        function,
        {name: signature.get(name, "constexpr") for name in names},
        {(names.index(name),): value for name, value in constants.items()},
        {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if n.endswith("_ptr")},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    return re.findall(r"\t(?:@!?U?P\w+ )?\s*([A-Z][A-Za-z0-9_.]*)", get_sass(compiled.asm["cubin"]))


@pytest.mark.slow
@pytest.mark.skipif(interpreted(), reason="the interpreter compiles nothing")
def test_they_read_and_add_16_bytes_a_thread():
    found = opcodes(
        kernels._read_kernel,
        {"source_ptr": "*fp32", "sink_ptr": "*fp32", "blocks": "i32"},
        {"BLOCK": kernels.READ_BLOCK},
    )
    loads = {opcode for opcode in found if opcode.startswith("LDG")}
    assert loads
    assert all(".128" in opcode for opcode in loads), loads
    found = opcodes(
        kernels._add_kernel, {"target_ptr": "*fp32", "n_rows": "i32"}, kernels.ADD_CONSTANTS,
        num_warps=kernels.ADD_WARPS,
    )  # fmt: skip
    added = {opcode for opcode in found if opcode.startswith(("RED", "ATOM"))}
    assert added
    assert all(opcode.startswith("RED") and "F32x4" in opcode for opcode in added), added
    assert not [opcode for opcode in found if opcode.startswith(("MEMBAR", "CCTL"))]
