"""The benchmark's command: rows with provenance, pure JSON, clear refusals."""

import json

import pytest
import torch

from detr_kernels import choose_backend, deform_attn, deform_attn_reference
from detr_kernels.bench import __main__ as bench
from detr_kernels.bench import ceilings, timing
from detr_kernels.shapes import Shape

TINY = ["--device", "cpu", "--shapes", "scene-enc", "--seconds", "0"]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(bench.SHAPES, "scene-enc", Shape(2, ((4, 6), (2, 3)), dim=4, points=2))
    monkeypatch.setitem(ceilings.COPY_BYTES, "cpu", 2**16)


def half(value, spatial_shapes, sampling_locations, attention_weights):
    """A peer that is off by a factor of two."""
    return deform_attn_reference(value, spatial_shapes, sampling_locations, attention_weights) / 2


def picky(value, spatial_shapes, sampling_locations, attention_weights):
    """A peer that takes fp32 alone, as the 2020 design."""
    if value.dtype != torch.float32:
        raise TypeError("not implemented for BFloat16")
    return deform_attn(value, spatial_shapes, sampling_locations, attention_weights)


@pytest.fixture
def peers(monkeypatch):
    module = type(torch)("a_peer")
    module.half, module.picky, module.three = half, picky, 3
    monkeypatch.setitem(__import__("sys").modules, "a_peer", module)


def test_rows_carry_times_errors_and_provenance(tmp_path, capsys):
    out = tmp_path / "deeper" / "rows.json"
    assert bench.main([*TINY, "--out", str(out)]) == 0
    ceiling, *rows = json.loads(out.read_text())
    assert (ceiling["kind"], ceiling["name"], ceiling["unit"]) == ("ceiling", "memory copy", "GB/s")
    assert ceiling["rate"] > 0
    # numba where it is installed, plain torch in any case
    backends = list(dict.fromkeys([choose_backend("cpu")[0], "torch"]))
    forms = {"function": ["ours ({})"], "module": ["ours ({}, fused)", "ours ({}, unfused)"]}
    assert [(r["path"], r["law"], r["contender"]) for r in rows] == [
        (path, law, name)
        for path in ("function", "module")
        for law in ("uniform", "local")
        for name in (
            *(form.format(backend) for backend in backends for form in forms[path]),
            "grid_sample",
        )
    ]
    for row in rows:
        assert row["kind"] == "operator"
        assert 0 < row["forward_ms"] < row["both_ms"]
        assert 0 < row["backward_ms"] < row["both_ms"]
        assert row["roofline_forward"] > 0
        assert max(row["errors"].values()) < 2e-6
        assert row["calls"] == 2 * timing.MIN_SETS
        assert row["versions"]["torch"] == torch.__version__
        assert row["commit"]
        assert "CPU" in row["device"]
    places = {"function": "grad locations", "module": "grad offsets"}
    assert all(places[row["path"]] in row["errors"] for row in rows)
    assert {r["speedup_both"] for r in rows if r["contender"] == "grid_sample"} == {1.0}
    text = capsys.readouterr().out
    assert "scene-enc, local locations, from offsets and logits" in text
    assert f"deform_attn: {backends[0]} (" in text


def test_json_is_all_there_is_on_stdout(capsys):
    assert bench.main([*TINY, "--paths", "function", "--json"]) == 0
    captured = capsys.readouterr()
    rows = json.loads(captured.out)
    assert [row["kind"] for row in rows] == ["ceiling", *["operator"] * (len(rows) - 1)]
    assert "no GPU in use" in captured.err


@pytest.mark.usefixtures("peers")
def test_a_peer_is_timed_on_both_paths_and_its_error_shows(capsys):
    assert bench.main([*TINY, "--laws", "local", "--peer", "a_peer:half", "--json"]) == 0
    rows = [r for r in json.loads(capsys.readouterr().out) if r.get("contender") == "a_peer:half"]
    assert [row["path"] for row in rows] == ["function", "module"]
    assert all(abs(row["errors"]["output"] - 0.5) < 1e-3 for row in rows)


@pytest.mark.usefixtures("peers")
def test_a_peer_that_lacks_a_dtype_is_cast_and_its_refusal_is_a_row(capsys):
    command = [*TINY, "--paths", "function", "--laws", "local", "--peer", "a_peer:picky", "--json"]
    assert bench.main([*command, "--dtypes", "float32", "bfloat16"]) == 1
    rows = json.loads(capsys.readouterr().out)
    found = {
        (r["kind"], r["contender"], r["dtype"])
        for r in rows
        if r.get("contender", "").startswith("a_peer")
    }
    assert found == {
        ("operator", "a_peer:picky", "float32"),
        ("operator", "a_peer:picky, cast", "bfloat16"),
        ("failure", "a_peer:picky", "bfloat16"),
    }
    (failure,) = (row for row in rows if row["kind"] == "failure")
    assert failure["error"] == "TypeError: not implemented for BFloat16"


def test_an_error_of_ours_is_never_a_row(monkeypatch):
    from detr_kernels.bench import contenders

    def broken(*arguments, **options):
        raise RuntimeError("a kernel failed")

    monkeypatch.setattr(contenders, "deform_attn", broken)
    with pytest.raises(RuntimeError, match="a kernel failed"):
        bench.main(TINY)


@pytest.mark.usefixtures("peers")
@pytest.mark.parametrize(
    ("peer", "message"),
    [
        ("torch", "expected module:function, got 'torch'"),
        ("no_such_module:f", "no_such_module cannot be imported"),
        ("a_peer:quarter", "a_peer has no function 'quarter'"),
        ("a_peer:three", "a_peer has no function 'three'"),
    ],
)
def test_a_peer_that_cannot_be_had(capsys, peer, message):
    assert bench.main([*TINY, "--peer", peer]) == 1
    assert message in capsys.readouterr().err


def test_no_gpu_is_said(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench.main(["--device", "cuda"]) == 1
    assert capsys.readouterr().err == (
        "error: --device cuda: torch sees no CUDA device; use --device cpu\n"
    )


def test_unknown_shape_lists_the_known(capsys):
    with pytest.raises(SystemExit) as exit_:
        bench.main(["--shapes", "enc"])
    assert exit_.value.code == 2
    assert "scene-enc" in capsys.readouterr().err


def test_file_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert bench.main([*TINY, "--out", str(tmp_path / "file" / "rows.json")]) == 1
    assert "error: " in capsys.readouterr().err
