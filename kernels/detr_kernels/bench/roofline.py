"""The least memory traffic of a call: every tensor once. A bound, not a model of a kernel."""

from torch import Tensor

from detr_kernels.shapes import FusedInputs, Inputs


def least_bytes(inputs: Inputs | FusedInputs) -> tuple[int, int]:
    """Bytes that forward and backward must move.

    Forward reads its arguments and writes the output. Backward reads them and grad_output and
    writes the gradients; value's is summed in fp32, so it is zeroed and written in fp32.
    """
    output = _bytes(inputs.grad_output)
    arguments = [a for a in inputs.arguments if isinstance(a, Tensor)]
    read = sum(_bytes(a) for a in arguments)
    value, *others = inputs.leaves
    wide = value.numel() * max(4, value.element_size())
    written = 2 * wide + sum(_bytes(leaf) for leaf in others)
    return read + output, read + output + written


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
