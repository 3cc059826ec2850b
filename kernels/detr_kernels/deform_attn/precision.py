"""Which dtype goes where: values in the dtype they come in or autocast's, places in fp32."""

import torch
from torch import Tensor


def in_autocast_dtype(value: Tensor) -> Tensor:
    """value, cast to the autocast dtype where autocast is on; fp64 stays as it is."""
    kind = value.device.type
    if torch.is_autocast_enabled(kind) and value.dtype != torch.float64:
        return value.to(torch.get_autocast_dtype(kind))
    return value


def exact_dtype(value: Tensor) -> torch.dtype:
    """The dtype of locations, weights and sums: fp32, or fp64 with fp64 values."""
    return torch.float64 if value.dtype == torch.float64 else torch.float32
