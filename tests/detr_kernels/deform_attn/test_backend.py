"""The choice of a backend, its reason, and refusals instead of quiet replacements."""

from typing import NamedTuple

import pytest
import torch

from detr_kernels import BackendError, choose_backend, deform_attn, explain
from detr_kernels.deform_attn import backend


class Properties(NamedTuple):
    """What torch says of a GPU, as far as we ask."""

    major: int
    minor: int


def test_cpu_runs_torch_without_numba(monkeypatch, plain_case):
    monkeypatch.setattr(backend, "_import_numba", lambda: "numba is not installed")
    name, reason = choose_backend("cpu")
    assert name == "torch"
    assert reason.startswith("numba is not installed; on a CPU")
    assert explain("cpu") == f"deform_attn: torch ({reason})"
    assert backend.resolve("auto", torch.device("cpu"), torch.float32) == "torch"
    with pytest.raises(BackendError, match="'numba' cannot run: numba is not installed; use"):
        deform_attn(
            plain_case.tensors(torch.float32)[0],
            plain_case.levels,
            *plain_case.tensors(torch.float32)[1:],
            backend="numba",
        )


def test_cpu_runs_numba_where_it_is_installed():
    pytest.importorskip("numba", reason="needs the extra `cpu`")
    name, reason = choose_backend("cpu")
    assert name == "numba"
    assert reason.startswith("compiled for this CPU by numba ")
    threads = f"{torch.get_num_threads()} threads share images and heads"
    assert explain("cpu") == f"deform_attn: numba ({reason}); {threads}; kept on disk"


def test_numba_that_cannot_be_imported_is_a_reason_for_torch(monkeypatch):
    pytest.importorskip("numba", reason="needs the extra `cpu`")

    def fails(name):
        raise ImportError("Numba needs NumPy 2.4 or less")

    monkeypatch.setattr(backend.importlib, "import_module", fails)
    assert "Numba needs NumPy 2.4" in backend._import_numba.__wrapped__()


def test_numba_by_name_refuses_a_gpu():
    with pytest.raises(BackendError, match="tensors are on cuda"):
        backend.resolve("numba", torch.device("cuda"), torch.float32)


def test_other_devices_run_grid_sample():
    name, reason = choose_backend("mps")
    assert name == "torch"
    assert "mps" in reason


def test_no_device_means_the_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_backend() == choose_backend("cpu")


@pytest.fixture
def gpu(monkeypatch):
    """A machine that claims an H100."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties(9, 0))
    return monkeypatch


def test_gpu_runs_triton(gpu):
    pytest.importorskip("triton")
    name, reason = choose_backend()
    assert name == "triton"
    assert reason.startswith("NVIDIA H100 with triton ")


def test_the_explanation_says_how_gradients_are_summed(gpu):
    pytest.importorskip("triton")
    assert "one backward with atomic sums; compiled at the first call" in explain("cuda")
    torch.use_deterministic_algorithms(True)
    try:
        assert "sums in a fixed order, slower (deterministic" in explain("cuda")
    finally:
        torch.use_deterministic_algorithms(False)


def test_gpu_runs_float64_by_grid_sample(gpu):
    name, reason = choose_backend("cuda", torch.float64)
    assert name == "torch"
    assert "fp64" in reason


def test_gpu_without_triton(gpu):
    gpu.setattr(backend, "HAS_TRITON", False)
    name, reason = choose_backend("cuda")
    assert name == "torch"
    assert "triton is not installed" in reason
    with pytest.raises(BackendError, match="triton is not installed"):
        backend.resolve("triton", torch.device("cuda"), torch.float32)


def test_old_gpu(gpu):
    gpu.setattr(torch.cuda, "get_device_properties", lambda device: Properties(7, 5))
    assert "7.5 is below 8.0" in choose_backend("cuda")[1]


def test_triton_by_name_is_never_replaced(plain_case, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    value, locations, weights = plain_case.tensors(torch.float32)
    with pytest.raises(BackendError, match="cannot run: CPU tensors need Triton's interpreter"):
        deform_attn(value, plain_case.levels, locations, weights, backend="triton")


def test_triton_by_name_refuses_float64(plain_case):
    value, locations, weights = plain_case.tensors(torch.float64)
    with pytest.raises(BackendError, match="values are fp64"):
        deform_attn(value, plain_case.levels, locations, weights, backend="triton")


@pytest.mark.slow
def test_choice_can_be_traced(monkeypatch):
    # what a compiled model on a GPU runs through; found here, not on the first GPU
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties(9, 0))

    def run(x):
        return x + {"triton": 1, "torch": 2}[backend.resolve("auto", torch.device("cuda"), x.dtype)]

    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend="eager")
    assert compiled(torch.zeros(1)).item() == 1
    assert compiled(torch.zeros(1, dtype=torch.float64)).item() == 2
