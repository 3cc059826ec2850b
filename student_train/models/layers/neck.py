"""From the backbone's maps to the transformer's: one width, and extra coarse levels."""

from __future__ import annotations

from torch import Tensor, nn


class Neck(nn.Module):
    """A 1x1 convolution and a group norm for every map; each further level halves the one before
    (3x3, stride 2).

    The first extra level reads the backbone's last map itself, not its projection. Deformable DETR
    section 4.1.
    """

    def __init__(self, channels: tuple[int, ...], dim: int, n_levels: int) -> None:
        super().__init__()
        projections = [projection(c, dim) for c in channels]
        for level in range(len(channels), n_levels):
            projections.append(projection(channels[-1] if level == len(channels) else dim, dim, 3))
        self.projections = nn.ModuleList(projections)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps [B, C_i, H_i, W_i] to n_levels maps of `dim` channels."""
        levels: list[Tensor] = []
        for i, project in enumerate(self.projections):
            source = maps[i] if i < len(maps) else (maps[-1] if i == len(maps) else levels[-1])
            levels.append(project(source))
        return levels


def projection(channels: int, dim: int, kernel: int = 1) -> nn.Sequential:
    """A convolution to `dim` channels and a group norm; a `kernel` of 3 halves the map."""
    convolution = nn.Conv2d(
        channels, dim, kernel, stride=2 if kernel == 3 else 1, padding=kernel // 2
    )
    nn.init.xavier_uniform_(convolution.weight)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    # 32 groups as official; narrow students keep 4 channels a group, so a map of one cell works
    return nn.Sequential(convolution, nn.GroupNorm(min(32, dim // 4), dim))
