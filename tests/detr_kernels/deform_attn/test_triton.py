"""The Triton kernels against the specification, on CPU tensors under Triton's interpreter.

The interpreter is chosen when triton is imported, so these run in a process of their own:
`TRITON_INTERPRET=1 pytest -m interpreter tests/detr_kernels`, which test_interpreter.py starts.
test_gpu.py holds the same tests for a GPU.
"""

import pytest
import torch

from detr_kernels import BackendError, deform_attn, deform_attn_reference

pytestmark = pytest.mark.interpreter

# value's dtype -> relative RMS error: fp32 sums, one rounding of output and grad value
# (to bf16 the interpreter cuts off, where a GPU rounds)
TOLERANCE = {torch.float32: 2e-6, torch.float16: 4e-4, torch.bfloat16: 6e-3}


def triton(levels):
    return lambda v, x, w: deform_attn(v, levels, x, w, backend="triton")


def reference(levels):
    return lambda v, x, w: deform_attn_reference(v, levels, x, w)


def doubled(tensors):
    value, locations, weights = (t.detach().double().requires_grad_() for t in tensors)
    return value, locations, weights


def test_equals_reference(case, outcome, assert_close, poisoned):
    tensors = case.tensors(torch.float32)
    found = outcome(triton(case.levels), tensors)
    expected = outcome(reference(case.levels), doubled(tensors))
    assert_close(found, expected, TOLERANCE[torch.float32])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(plain_case, outcome, assert_close, poisoned, dtype):
    tensors = plain_case.tensors(dtype)
    found = outcome(triton(plain_case.levels), tensors)
    assert [t.dtype for t in found] == [dtype, dtype, torch.float32, torch.float32]
    expected = outcome(reference(plain_case.levels), doubled(tensors))
    assert_close(found, expected, TOLERANCE[dtype])


def test_64_bit_offsets(plain_case, outcome, assert_close, monkeypatch):
    from detr_kernels.deform_attn import triton_backward, triton_common, triton_forward

    def wide(*arguments):
        launch = triton_common.plan(*arguments)
        assert launch.constants["WIDE"] is False
        return launch._replace(constants=launch.constants | {"WIDE": True})

    monkeypatch.setattr(triton_forward, "plan", wide)
    monkeypatch.setattr(triton_backward, "plan", wide)
    tensors = plain_case.tensors(torch.float32)
    found = outcome(triton(plain_case.levels), tensors)
    expected = outcome(reference(plain_case.levels), doubled(tensors))
    assert_close(found, expected, TOLERANCE[torch.float32])


def test_sizes_beyond_the_values_read_zero(plain_case):
    # a tensor of sizes on a GPU is not checked: what lies past the end must not be touched
    value, locations, weights = plain_case.tensors(torch.float32)
    run = torch.ops.detr_kernels.deform_attn
    sizes = torch.tensor([(4, 3), (1, 1), (3, 5)])
    output = run(value, sizes, locations, weights, "triton")
    weights = weights.detach().clone()
    weights[:, :, :, 2] = 0
    expected = deform_attn_reference(value, plain_case.levels, locations, weights)
    torch.testing.assert_close(output, expected)
    output.sum().backward()
    assert value.grad.isfinite().all()
    assert value.grad[:, 13:].count_nonzero() == 0


def test_deterministic_mode_is_not_ignored(plain_case):
    value, locations, weights = plain_case.tensors(torch.float32)
    output = deform_attn(value, plain_case.levels, locations, weights, backend="triton")
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(BackendError, match="deterministic"):
            output.sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


def test_auto_stays_with_torch_on_a_cpu(plain_case, monkeypatch):
    from detr_kernels.deform_attn import triton_forward

    def never(*arguments):
        raise AssertionError

    monkeypatch.setattr(triton_forward, "forward", never)
    value, locations, weights = plain_case.tensors(torch.float32)
    deform_attn(value, plain_case.levels, locations, weights)
