"""Runs side by side, from their folders alone."""

import json
from pathlib import Path

import pytest

from student_train.commands.tables import curve_lines
from student_train.errors import RunError
from student_train.evaluation.compare import curves, differences, read_run, sparkline


def write_run(folder: Path, aps: list[float | None], **settings: object) -> Path:
    folder.mkdir()
    config = {"epochs": 3, "optim": {"lr": 1e-4, "drop_epochs": [11]}, **settings}
    (folder / "config.json").write_text(json.dumps({"config": config}))
    rows = [
        {"kind": "train", "step": 2 * at, "loss": {"total": 10.0 / at}} for at in range(1, 5)
    ] + [{"kind": "eval", "step": 4 * at, "AP": ap} for at, ap in enumerate(aps, start=1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_best_evaluation_counts(tmp_path: Path):
    run = read_run(write_run(tmp_path / "a", [0.1, 0.4, None, 0.3]))
    assert run.best is not None
    assert (run.best["step"], run.best["AP"], run.step) == (8, 0.4, 16)
    assert curves([run])["AP"] == [[(4, 0.1), (8, 0.4), (16, 0.3)]]
    assert run.to_json()["loss"][0] == [2, 10.0]


def test_only_what_differs_is_shown(tmp_path: Path):
    runs = [
        read_run(write_run(tmp_path / "a", [0.1], optim={"lr": 1e-4}, preset="x")),
        read_run(write_run(tmp_path / "b", [0.2], optim={"lr": 2e-4, "ema": 0.9}, preset="y")),
    ]
    assert differences(runs) == {"optim.lr": ["0.0001", "0.0002"], "optim.ema": ["", "0.9"]}


def test_curves_share_a_scale(tmp_path: Path):
    runs = [
        read_run(write_run(tmp_path / "a", [0.0, 0.1])),
        read_run(write_run(tmp_path / "b", [0.4, 0.8])),
    ]
    lines = list(curve_lines(runs))
    assert lines[0] == "AP  0 to 0.8"
    assert lines[1].startswith("  ▁▂  ")
    assert lines[2].startswith("  ▅█  ")


def test_a_long_curve_is_shortened_by_means():
    assert sparkline([0.0] * 50 + [1.0] * 50, 0, 1, width=4) == "▁▁██"
    assert sparkline([], 0, 1) == ""
    assert sparkline([5.0], 5, 5) == "▁"


def test_what_is_no_run_is_named(tmp_path: Path):
    with pytest.raises(RunError, match="is not a run folder"):
        read_run(tmp_path)
    folder = write_run(tmp_path / "a", [])
    (folder / "metrics.jsonl").unlink()
    with pytest.raises(RunError, match="recorded nothing yet"):
        read_run(folder)
