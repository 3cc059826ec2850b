"""Crossing between host and device without making either wait."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def upload(array: NDArray[np.int64] | NDArray[np.float64], device: torch.device) -> Tensor:
    """A copy on the device; the host goes on at once, because page-locked memory is sent."""
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Download:
    """A tensor on its way to the host; `result` waits for it."""

    def __init__(self, tensor: Tensor):
        self._event: torch.cuda.Event | None = None
        self._host = tensor
        if tensor.device.type == "cuda":
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(tensor.device))

    def result(self) -> np.ndarray:
        """The values. Waits in whatever thread calls it, the others go on."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.numpy()
