"""Which implementation runs for a tensor, and why: decided by device and dtype, printable."""

import importlib.util
import os
from functools import lru_cache

import torch

from detr_kernels.errors import ArgumentError, BackendError

BACKENDS = ("auto", "triton", "torch")


def interpreted() -> bool:
    """Whether Triton kernels run under its interpreter, on CPU tensors (TRITON_INTERPRET=1)."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def choose_backend(
    device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> tuple[str, str]:
    """What `backend="auto"` takes for values of `dtype` on `device`: ("triton" | "torch", reason).

    No device: the current GPU where there is one, else the CPU.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    if device.type == "cpu":
        return "torch", "on a CPU the operator is an embedding bag in plain torch"
    if device.type != "cuda":
        return "torch", f"the Triton kernels are for CUDA; {device.type} runs grid_sample"
    obstacle = _obstacle(device)
    if obstacle:
        return "torch", f"{obstacle}, so grid_sample runs"
    if dtype == torch.float64:
        return "torch", "fp64 runs grid_sample: the Triton kernels accumulate in fp32"
    return "triton", f"{torch.cuda.get_device_name(device)} with triton"


def explain(device: torch.device | str | None = None, dtype: torch.dtype = torch.float32) -> str:
    """One printable line: the backend that `auto` takes and the reason."""
    name, reason = choose_backend(device, dtype)
    return f"deform_attn: {name} ({reason})"


def resolve(backend: str, device: torch.device, dtype: torch.dtype) -> str:
    """The backend for one call, "triton" or "torch".

    Raises ArgumentError for an unknown name, and BackendError where Triton was asked for by name
    and cannot run: a backend asked for is never quietly replaced.
    """
    if backend == "auto":
        return choose_backend(device, dtype)[0]
    if backend == "torch":
        return "torch"
    if backend != "triton":
        raise ArgumentError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    if dtype == torch.float64:
        raise BackendError(
            "backend 'triton' takes fp32, fp16 and bf16 values, got fp64: its sums are fp32; "
            "use backend='torch' (or 'auto')"
        )
    if device.type == "cpu" and interpreted():
        return "triton"
    if device.type != "cuda":
        raise BackendError(
            f"backend 'triton' needs CUDA tensors, got {device}; use backend='torch' (or 'auto'), "
            "or set TRITON_INTERPRET=1 before start: Triton's interpreter runs the kernels on CPUs"
        )
    obstacle = _obstacle(device)
    if obstacle:
        raise BackendError(f"backend 'triton' cannot run: {obstacle}; use backend='torch'")
    return "triton"


@lru_cache
def _obstacle(device: torch.device) -> str:
    """Why Triton cannot run on this GPU, or nothing."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if torch.version.hip is not None:
        return "the Triton kernels are untested on ROCm"
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        return f"compute capability {major}.{minor} is below 8.0"
    return ""
