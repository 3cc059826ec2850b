"""The benchmark's command: rows with provenance, pure JSON, clear refusals."""

import json

import pytest
import torch

from detr_kernels import bench
from detr_kernels.shapes import Shape


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(bench.SHAPES, "scene-enc", Shape(2, ((4, 6), (2, 3)), dim=4, points=2))


COMMAND = ["--device", "cpu", "--shapes", "scene-enc", "--seconds", "0"]


def test_rows_carry_times_errors_and_provenance(tmp_path, capsys):
    out = tmp_path / "deeper" / "rows.json"
    assert bench.main([*COMMAND, "--out", str(out)]) == 0
    rows = json.loads(out.read_text())
    assert [(r["law"], r["contender"]) for r in rows] == [
        ("uniform", "ours (torch)"),
        ("uniform", "grid_sample"),
        ("local", "ours (torch)"),
        ("local", "grid_sample"),
    ]
    for row in rows:
        assert row["forward_ms"] > 0
        assert row["backward_ms"] > 0
        assert row["error_output"] < 1e-6
        assert row["error_grad_value"] < 1e-6
        assert row["calls"] == 2 * bench.INPUT_SETS
        assert row["versions"]["torch"] == torch.__version__
        assert row["commit"]
        assert "CPU" in row["device"]
    assert [row["speedup"] for row in rows if row["contender"] == "grid_sample"] == [1.0, 1.0]
    text = capsys.readouterr().out
    assert "scene-enc, local locations" in text
    assert "deform_attn: torch (on a CPU" in text


def test_json_is_all_there_is_on_stdout(capsys):
    assert bench.main([*COMMAND, "--json"]) == 0
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)) == 4
    assert "no GPU in use" in captured.err


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
    assert bench.main([*COMMAND, "--out", str(tmp_path / "file" / "rows.json")]) == 1
    assert "error: " in capsys.readouterr().err
