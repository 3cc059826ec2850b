"""Losses that are not finite: what is sent to the other processes, and what people are told."""

from collections.abc import Sequence

import torch

from student_train.losses import Losses
from student_train.models.output import StudentOutput


def unusable(output: StudentOutput) -> Losses:
    """A loss of NaN that reaches every parameter that a real one reaches."""
    predictions = [*output.layers, *(output.one_to_many or [])]
    if output.proposals is not None:
        predictions.append(output.proposals)
    if output.denoising is not None:
        predictions += output.denoising.layers
    total = sum(each.logits.float().sum() + each.boxes.float().sum() for each in predictions)
    nothing = torch.zeros(0, device=output.last.boxes.device)
    return Losses(torch.as_tensor(total) * float("nan"), (), nothing, nothing)


def broken_parts(seen: Sequence[Losses]) -> str:
    """Which parts of a step's losses are not finite."""
    parts = [name for losses in seen for name, v in losses.parts.items() if not v.isfinite()]
    if not parts:
        return "the gradient is not finite, though the losses are."
    return f"not finite are {', '.join(dict.fromkeys(parts))}."
