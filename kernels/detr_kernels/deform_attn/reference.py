"""Multi-scale deformable attention in plain torch: what every backend is compared with.

Deformable DETR (arXiv 2010.04159), equation 3, without the linear projections around it: for
every query and head, a weighted sum of bilinear samples of the head's slice of each level's map.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_kernels.deform_attn.levels import placed


def deform_attn_reference(
    value: Tensor,
    spatial_shapes: Sequence[Sequence[int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Sample and sum, level by level, with `grid_sample`; any device and float dtype, also fp64.

    value: [B, S, H, D], the levels' maps flattened row by row and concatenated, S = sum of h * w.
    spatial_shapes: one (h, w) a level, in the order of `value`; or (h, w, start) as elsewhere.
    sampling_locations: [B, Q, H, L, P, 2], x then y, 0..1 across each level's own map: 0 and 1 are
        its outer edges, so pixel i's centre is (i + 0.5) / w. What falls outside is read as zero.
    attention_weights: [B, Q, H, L, P], used as they are (a softmax over L * P in the known models).

    Returns [B, Q, H * D] of value's dtype. All three tensors get gradients.
    """
    batch, _, heads, dim = value.shape
    queries, levels, points = (sampling_locations.shape[i] for i in (1, 3, 4))
    dtype = value.dtype
    grids = (2 * sampling_locations - 1).transpose(1, 2).flatten(0, 1).to(dtype)  # [B*H,Q,L,P,2]
    samples: list[Tensor] = []
    for level, (h, w, start) in enumerate(placed(spatial_shapes)):
        image = (
            value[:, start : start + h * w].permute(0, 2, 3, 1).reshape(batch * heads, dim, h, w)
        )
        grid = grids[:, :, level]
        samples.append(F.grid_sample(image, grid, padding_mode="zeros", align_corners=False))
    weights = attention_weights.transpose(1, 2).reshape(batch * heads, 1, queries, levels * points)
    output = (torch.cat(samples, dim=-1) * weights.to(dtype)).sum(-1)  # [B*H, D, Q]
    return output.view(batch, heads * dim, queries).transpose(1, 2).contiguous()
