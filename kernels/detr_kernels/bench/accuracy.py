"""How far a contender is from fp64 on the same inputs."""

from collections.abc import Callable

from torch import Tensor, autograd

from detr_kernels.bench.contenders import Contender
from detr_kernels.deform_attn.fused_reference import deform_attn_fused_reference
from detr_kernels.deform_attn.reference import deform_attn_reference
from detr_kernels.shapes import FusedInputs, Inputs

# queries that the comparison covers: all of an encoder's in fp64 would fill a GPU
CHECKED_QUERIES = 2048


def errors(contender: Contender, inputs: Inputs | FusedInputs) -> dict[str, float]:
    """Relative RMS errors of output and gradients against fp64, on the first queries."""
    part = _first_queries(inputs)
    exact = _doubled(part)
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


def _first_queries(inputs: Inputs | FusedInputs) -> Inputs | FusedInputs:
    """All pixels, and every other tensor's first queries, as leaves of their own."""

    def few(tensor: Tensor) -> Tensor:
        part = tensor.detach()[:, :CHECKED_QUERIES].contiguous()
        return part.requires_grad_(tensor.requires_grad)

    value = inputs.value.detach().requires_grad_()
    rest = [few(a) if isinstance(a, Tensor) else a for a in inputs[1:]]
    return type(inputs)(value, *rest)  # pyright: ignore[reportArgumentType]


def _doubled(inputs: Inputs | FusedInputs) -> Inputs | FusedInputs:
    def double(tensor: Tensor) -> Tensor:
        return tensor.detach().double().requires_grad_(tensor.requires_grad)

    return type(inputs)(*(double(a) if isinstance(a, Tensor) else a for a in inputs))  # pyright: ignore[reportArgumentType]
