"""How far a contender is from fp64 on the same inputs."""

from collections.abc import Callable

from torch import Tensor, autograd

from detr_kernels.bench.contenders import Contender
from detr_kernels.deform_attn.fused_reference import deform_attn_fused_reference
from detr_kernels.deform_attn.reference import deform_attn_reference
from detr_kernels.shapes import FusedInputs, Inputs, mapped

# queries that the comparison covers: all of an encoder's in fp64 would fill a GPU
CHECKED_QUERIES = 2048


def errors(contender: Contender, inputs: Inputs | FusedInputs) -> dict[str, float]:
    """Relative RMS errors of output and gradients against fp64, on the first queries."""
    part = mapped(inputs, lambda t: t[:, :CHECKED_QUERIES].contiguous())
    part = part._replace(value=inputs.value.detach().requires_grad_())
    exact = mapped(part, Tensor.double)
    specification = (
        deform_attn_reference if isinstance(part, Inputs) else deform_attn_fused_reference
    )
    names = ("output", *(f"grad {name}" for name in _leaf_names(part)))
    found, wanted = _outcome(contender.run, part), _outcome(specification, exact)
    return {
        name: ((a.double() - b).norm() / b.norm()).item()
        for name, a, b in zip(names, found, wanted, strict=True)
    }


def _outcome(run: Callable[..., Tensor], inputs: Inputs | FusedInputs) -> list[Tensor]:
    output = run(*inputs.arguments)
    return [output.detach(), *autograd.grad(output, inputs.leaves, inputs.grad_output)]


def _leaf_names(inputs: Inputs | FusedInputs) -> tuple[str, ...]:
    if isinstance(inputs, Inputs):
        return "value", "locations", "weights"
    return "value", "offsets", "logits"
