"""Batch norms whose statistics and scales stay as pretrained: detection batches are too small for
new ones.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class FrozenBatchNorm(nn.Module):
    """A batch norm turned into a fixed affine map, with the activation that timm attaches to it.

    Runs as one kernel in the input's dtype: multiplying by float32 buffers instead would lift
    every map to float32 under autocast.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = getattr(norm, name)
            assert isinstance(value, Tensor)
            self.register_buffer(name, value.detach().clone())
        self.eps = norm.eps
        self.act = getattr(norm, "act", None) or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape and dtype."""
        x = F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )
        return self.act(x)


def freeze_batch_norms(module: nn.Module) -> None:
    """Replace every batch norm beneath `module`."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm(child))
        else:
            freeze_batch_norms(child)
