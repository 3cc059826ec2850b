"""What an adapter is compared on: a model, an inference, and weights that were moved."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from teacher_infer.adapters.protocol import AdapterSpec, Detections

# what a framework itself finds in an image (H x W x 3, uint8, RGB)
Infer = Callable[[np.ndarray], Detections]


# the teacher, and its framework's inference with the same weights
Pair = tuple[AdapterSpec, Infer]


SIDE = 192


@dataclass(frozen=True)
class Case:
    """One model of one framework, and the score from which on its boxes are compared."""

    framework: str
    model: str
    floor: float = 0.05
    long: bool = True

    def __str__(self) -> str:
        return f"{self.framework}-{self.model}"


def disturb(model: Any, spread: float = 1.0) -> None:
    """Move every number of a model, statistics included; raise class biases that say `nothing`."""
    generator = torch.Generator().manual_seed(11)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float32)

    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if name.endswith("running_var"):
            tensor.mul_(1 + 0.1 * noise(tensor).abs())
        elif tensor.ndim == 1 and tensor.numel() and tensor.mean() < -2:
            tensor.copy_(noise(tensor) * spread - 2)
        else:
            tensor.add_(noise(tensor) * (0.05 * tensor.std(correction=0) + 0.005))
