"""A trained student made faster for inference: batch norms become part of the convolutions before
them.
"""

from __future__ import annotations

import re

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from student_train.models.backbones.frozen_norm import FrozenBatchNorm
from student_train.models.layers.conv_norm import RepConv

# a convolution and the norm after it, by their names in one parent
_PAIRS = ((r"conv", ("norm", "bn")), (r"conv(\d+)", (r"bn\1",)))


def make_ready(student: nn.Module, device: torch.device) -> None:
    """Make a student in eval mode as fast as it gets, in place: see `fuse_norms`. On a CPU the
    channels of a cell also lie side by side: with one thread and few images, PyTorch takes a slow
    path of its own for 1 x 1 convolutions that are arranged otherwise.
    """
    fuse_norms(student)
    if device.type == "cpu":
        student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.no_grad()
def fuse_norms(student: nn.Module) -> int:
    """Fold every batch norm of a student in eval mode into the convolution before it, in place, and
    merge the branches of `RepConv`; how many norms went.

    The outputs stay what they were, up to rounding. What is left can neither be trained nor saved
    under the names it had: for inference alone.
    """
    fused = 0
    for module in student.modules():
        for name, child in list(module.named_children()):
            norm_name = _norm_after(module, name)
            if isinstance(child, nn.Conv2d) and norm_name is not None:
                setattr(module, norm_name, _fuse(child, getattr(module, norm_name)))
                fused += 1
    for module in student.modules():
        if isinstance(module, RepConv):
            module.merge()
    return fused


def _norm_after(module: nn.Module, name: str) -> str | None:
    if isinstance(module, nn.Sequential) and name.isdigit():
        following = str(int(name) + 1)
        found = getattr(module, following, None)
        return following if isinstance(found, nn.BatchNorm2d | FrozenBatchNorm) else None
    # not in a network that hands out what its parts make, as timm's lists of maps: that may be the
    # convolution's own output
    if name.startswith("conv_") and not isinstance(module, nn.ModuleDict):
        # timm's MobileNets and EfficientNets: conv_pw, bn1, conv_dw, bn2, ...
        names = [child for child, _ in module.named_children()]
        norm = names[names.index(name) + 1] if names[-1] != name else ""
        found = getattr(module, norm, None) if norm.startswith("bn") else None
        return norm if isinstance(found, nn.BatchNorm2d | FrozenBatchNorm) else None
    for pattern, norms in _PAIRS:
        if match := re.fullmatch(pattern, name):
            for each in norms:
                norm = match.expand(each)
                found = getattr(module, norm, None)
                if isinstance(found, nn.BatchNorm2d | FrozenBatchNorm):
                    return norm
    return None


def _fuse(conv: nn.Conv2d, norm: nn.BatchNorm2d | FrozenBatchNorm) -> nn.Module:
    """Change the convolution; what is left of the norm: the activation that timm attaches to it."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    conv.weight, conv.bias = weight, bias
    return getattr(norm, "act", None) or nn.Identity()
