"""How the operators are made known to torch: schema, implementation, fake tensors, autograd.

With `define` and `impl` rather than `custom_op`, whose first call imports torch's compiler:
seconds, also in a process that only predicts.
"""

from collections.abc import Callable
from typing import Any

import torch

from detr_kernels.errors import BackendError

_NAMESPACE = "detr_kernels"


def register(
    name: str, schema: str, implementation: Callable[..., Any], fake: Callable[..., Any]
) -> None:
    """Register `detr_kernels::<name>` for all devices.

    schema: "(arguments) -> results" in torch's schema language. fake: the same signature as the
    implementation, returns empty results of the right shapes, dtypes and devices.
    """
    qualified = f"{_NAMESPACE}::{name}"
    torch.library.define(qualified, schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.impl(qualified, "default")(implementation)
    torch.library.register_fake(qualified)(fake)


def register_once_differentiable(
    name: str,
    backward_name: str,
    differentiate: Callable[..., Any],
    save: Callable[[Any, tuple[Any, ...], Any], None],
) -> None:
    """Give operator `name` its gradient, and make the operator that computes the gradient refuse.

    differentiate(ctx, grad_output) -> a gradient or None for each argument; it calls the operator
    `backward_name`. save(ctx, inputs, output) keeps what it needs.
    """

    def save_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    def refuse(ctx: Any, *grads: Any) -> None:
        raise BackendError(
            f"{name} can be differentiated once, and a second derivative was asked for; "
            "deform_attn_reference has every derivative"
        )

    torch.library.register_autograd(f"{_NAMESPACE}::{name}", differentiate, setup_context=save)
    torch.library.register_autograd(
        f"{_NAMESPACE}::{backward_name}", refuse, setup_context=save_nothing
    )
