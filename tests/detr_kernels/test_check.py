"""The verification's command: a line a check, and a failing kernel is found."""

import json

import pytest
import torch

from detr_kernels.check import __main__ as command
from detr_kernels.check.numbers import number_checks
from detr_kernels.check.outcome import CheckError, SkipError, relative_errors, run
from detr_kernels.deform_attn import backend, cpu

CPU = torch.device("cpu")


@pytest.fixture
def quick(monkeypatch):
    """Without torch's own checks and the interpreter's process, which take their time."""
    monkeypatch.setattr(command, "torch_checks", lambda device, backend: iter(()))
    monkeypatch.setattr(command, "_under_interpreter", lambda: iter(()))


def broken(monkeypatch, change):
    """The CPU implementation, its three gradients changed."""
    monkeypatch.setattr(backend, "_import_numba", lambda: "numba is not installed")
    backward = cpu.backward
    monkeypatch.setattr(cpu, "backward", lambda *arguments: change(*backward(*arguments)))


@pytest.mark.usefixtures("quick")
def test_all_is_well_here(capsys, tmp_path):
    out = tmp_path / "docs" / "check.json"
    assert command.main(["--device", "cpu", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(("deform_attn: torch", "deform_attn: numba"))
    assert lines[-1] == f"{len(lines) - 2} checks, 0 failed"
    assert all(line.startswith("ok    ") for line in lines[1:-1])
    report = json.loads(out.read_text())
    assert len(report["checks"]) == len(lines) - 2
    assert report["versions"]["torch"] == torch.__version__


@pytest.mark.usefixtures("quick")
def test_json_alone_on_stdout_and_exit_code_1(capsys, monkeypatch):
    broken(monkeypatch, lambda value, places, weights: (value, places * 1.001, weights))
    assert command.main(["--device", "cpu", "--json"]) == 1
    results = {c["name"]: c["result"] for c in json.loads(capsys.readouterr().out)["checks"]}
    assert results["function against fp64, float32"] == "failed"
    assert results["second derivative refused"] == "ok"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, p, w: (v * float("nan"), p, w), "grad value: not finite"),
        (lambda v, p, w: (v, p, w[..., :1]), "RuntimeError: "),
        (lambda v, p, w: (v + 1e-4, p, w), "(grad value), limit 1e-05"),
        (lambda v, p, w: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_wrong_is_said(monkeypatch, change, message):
    broken(monkeypatch, change)
    name, check = next(number_checks(CPU, "torch"))
    (outcome,) = run([(name, check)])
    assert outcome.result == "failed"
    assert message in outcome.detail
    assert outcome.line().startswith("FAIL  function against fp64, float32: ")


def test_gradients_that_differ_from_run_to_run_are_found(monkeypatch):
    broken(monkeypatch, lambda v, p, w: (v + 1e-9 * torch.rand_like(v), p, w))
    checks = {name: check for name, check in number_checks(CPU, "torch")}
    (outcome,) = run([("repeats", checks["deterministic mode repeats"])])
    assert outcome.result == "failed"
    assert "numbers differ" in outcome.detail


def test_a_check_may_not_apply():
    def elsewhere():
        raise SkipError("there is one GPU")

    (outcome,) = run([("a second GPU", elsewhere)])
    assert (outcome.result, outcome.line()) == ("skipped", "skip  a second GPU: there is one GPU")


def test_the_worst_error_counts():
    ones = torch.ones(4)
    said = relative_errors(("a", "b"), (ones, ones * 1.001), (ones, ones), 1e-2)
    assert said == "1.0e-03 at most (b), limit 1e-02"
    with pytest.raises(CheckError):
        relative_errors(("a",), (ones * 1.1,), (ones,), 1e-2)


def test_no_gpu_is_said(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main(["--device", "cuda"]) == 1
    assert "torch sees no CUDA device" in capsys.readouterr().err


def test_an_interpreter_that_dies_is_a_failure(monkeypatch):
    monkeypatch.setattr(command.sys, "executable", "/bin/false")
    monkeypatch.setattr(command, "HAS_TRITON", True)
    (outcome,) = command._under_interpreter()
    assert (outcome.result, outcome.detail) == ("failed", "exit code 1")
