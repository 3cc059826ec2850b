"""Which implementation runs for a tensor, and why: decided by device and dtype, printable."""

import importlib.util
import os
from functools import lru_cache
from importlib.metadata import version

import torch

from detr_kernels.errors import ArgumentError, BackendError

BACKENDS = ("auto", "triton", "numba", "torch")
HAS_TRITON = importlib.util.find_spec("triton") is not None


def interpreted() -> bool:
    """Whether Triton kernels run under its interpreter, on CPU tensors (TRITON_INTERPRET=1)."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def choose_backend(
    device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> tuple[str, str]:
    """What `backend="auto"` takes for values of `dtype` on `device`, and the reason: the name is
    "triton", "numba" or "torch".

    No device: the current GPU where there is one, else the CPU.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    if device.type == "cpu":
        obstacle = numba_obstacle()
        if obstacle:
            return "torch", f"{obstacle}; on a CPU the operator is an embedding bag in plain torch"
        return "numba", f"compiled for this CPU by numba {version('numba')}"
    obstacle = _obstacle(device, dtype)
    if obstacle:
        return "torch", f"{obstacle}; grid_sample runs"
    return "triton", f"{torch.cuda.get_device_name(device)} with triton {version('triton')}"


def explain(device: torch.device | str | None = None, dtype: torch.dtype = torch.float32) -> str:
    """One printable line: the backend that `auto` takes, the reason, and how it launches."""
    name, reason = choose_backend(device, dtype)
    line = f"deform_attn: {name} ({reason})"
    if name == "numba":
        return f"{line}; {torch.get_num_threads()} threads share images and heads; kept on disk"
    if name != "triton":
        return line
    exact = torch.are_deterministic_algorithms_enabled()
    sums = "sums in a fixed order, slower (deterministic algorithms)" if exact else "atomic sums"
    return f"{line}; one kernel forward, one backward with {sums}; compiled at the first call"


def resolve(backend: str, device: torch.device, dtype: torch.dtype) -> str:
    """The backend for one call, "triton", "numba" or "torch".

    Raises ArgumentError for an unknown name, and BackendError where one was asked for by name and
    cannot run: a backend asked for is never quietly replaced.
    """
    if backend == "torch":
        return "torch"
    if backend == "auto":
        if device.type == "cpu":
            return "torch" if numba_obstacle() else "numba"
        return "torch" if _obstacle(device, dtype) else "triton"
    if backend == "numba":
        obstacle = numba_obstacle() if device.type == "cpu" else f"tensors are on {device.type}"
        if obstacle:
            raise BackendError(
                f"backend 'numba' cannot run: {obstacle}; use backend='torch' or 'auto'"
            )
        return "numba"
    if backend != "triton":
        raise ArgumentError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    if device.type == "cpu" and interpreted() and dtype != torch.float64:
        return "triton"
    obstacle = _obstacle(device, dtype)
    if obstacle:
        raise BackendError(
            f"backend 'triton' cannot run: {obstacle}; use backend='torch' or 'auto'"
        )
    return "triton"


@torch.compiler.assume_constant_result
def numba_obstacle() -> str:
    """Why numba cannot run here, or nothing. Imports it where it is installed."""
    return _import_numba()


@lru_cache(maxsize=1)
def _import_numba() -> str:
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed (pip install 'teach-detr[cpu]')"
    try:
        importlib.import_module("numba")
    except ImportError as error:
        # numba checks NumPy's version, for one
        return f"numba cannot be imported: {error}"
    return ""


def _obstacle(device: torch.device, dtype: torch.dtype) -> str:
    """Why Triton cannot run for these tensors, or nothing.

    torch.compile traces this: only what it can look up stands here.
    """
    if dtype == torch.float64:
        return "the Triton kernels sum in fp32, and the values are fp64"
    if device.type == "cpu":
        return "CPU tensors need Triton's interpreter, TRITON_INTERPRET=1 from the start"
    if device.type != "cuda":
        return f"the Triton kernels are for CUDA, not {device.type}"
    if not HAS_TRITON:
        return "triton is not installed"
    if torch.version.hip is not None:
        return "the Triton kernels are untested on ROCm"
    properties = torch.cuda.get_device_properties(device)
    if properties.major < 8:
        return f"compute capability {properties.major}.{properties.minor} is below 8.0"
    return ""
