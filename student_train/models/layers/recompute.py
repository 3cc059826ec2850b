"""Activation checkpointing of a stack's layers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def run_layer(layer: nn.Module, recompute: bool, *inputs: Any) -> Tensor:
    """What `layer` makes of its inputs. With `recompute`, and in training, its activations are not
    kept but computed again in the backward pass: less memory, the same gradients.
    """
    if recompute and layer.training:
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)
