"""The dry run of an experiment and its results as text: what is left, how long, what came out."""

import json
from pathlib import Path
from typing import Any

import pytest

from teach_detr import cli
from teach_detr.experiment import read_experiment
from teach_detr.experiment.figures import interval_panels
from teach_detr.experiment.grid import Grid
from teach_detr.experiment.outcome import gather
from teach_detr.experiment.workers import Job
from tests.teach_detr.experiment.conftest import run


def dry_run(capsys: pytest.CaptureFixture[str], file: Path) -> tuple[dict[str, Any], str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(["experiment", str(file), "--dry-run", "--json"])
    assert not ended.value.code
    out, err = capsys.readouterr()
    return json.loads(out), " ".join(err.split())


def test_a_dry_run_says_what_is_left_and_how_long(
    file: Path, trained: list[Job], capsys: pytest.CaptureFixture[str]
) -> None:
    run(file)
    trained.clear()
    capsys.readouterr()
    before = sorted(file.parent.rglob("*"))
    said, err = dry_run(capsys, file)
    assert len(said["runs"]) == 12
    assert said["left"] == ["missing/taught/seed-1"]
    assert said["seconds"] == said["seconds_each"] == 2.0
    assert "warning the backbone" in err
    assert "begins with random weights" in err
    assert "time about 2 s for 1 runs, 1 at a time: 11 runs that ended took 2 s each" in err
    assert not trained
    assert sorted(file.parent.rglob("*")) == before


@pytest.mark.slow
def test_a_dry_run_of_something_new_measures_a_few_steps(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said, err = dry_run(capsys, file)
    assert said["left"] == said["runs"]
    assert said["seconds"] == pytest.approx(12 * said["seconds_each"])
    assert "1 steps of" in err
    file.write_text(file.read_text().replace("steps = 1", 'steps = 1\ndevice = "cuda:9"'))
    said, err = dry_run(capsys, file)
    assert said["seconds"] is None
    assert "time unknown for 12 runs, 1 at a time: a few steps failed: " in err
    assert "cuda:9" in err


def test_results_as_markdown(file: Path, trained: list[Job]) -> None:
    run(file)
    text = (file.parent / "out" / "results.md").read_text()
    assert "**complete** (2 seeds, in percent)" in text
    row = next(line for line in text.splitlines() if line.startswith("| taught"))
    assert row.endswith("| better |")
    assert "±" in row


def test_the_command_without_a_file_needs_data_and_store(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main(["experiment"])
    assert ended.value.code == 2
    assert "--data DIR with --store STORE" in capsys.readouterr().err


def test_intervals_of_one_arm_share_a_panel(file: Path, trained: list[Job]) -> None:
    run(file)
    outcome = gather(Grid(read_experiment(file)), {})
    panels = interval_panels(outcome)
    assert {name: [row.label for row in rows] for name, rows in panels.items()} == {
        "complete": ["taught", "astray"],
        "missing": ["taught", "astray"],
    }
    for arms in outcome.conditions.values():
        del arms["astray"]
    panels = interval_panels(outcome)
    assert {name: [row.label for row in rows] for name, rows in panels.items()} == {
        "taught": ["complete", "missing"]
    }
