"""Experiments from end to end: what is trained, what is passed over, and what comes out."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from box_store import load_coco
from box_store.categories import ClassSpace
from box_store.errors import UsageError
from student_train.evaluation.coco_metrics import read_annotations
from student_train.runs.run_folder import RunFolder
from student_train.settings.overrides import Resolved
from teach_detr import cli
from teach_detr.experiment import experiment as module
from teach_detr.experiment import read_experiment
from teach_detr.experiment.grid import Cell, Grid
from teach_detr.experiment.workers import Ended, Finished, Job
from tests.teach_detr.experiment.conftest import run, settings_of


def test_what_comes_out(file: Path, trained: list[Job]) -> None:
    outcome = run(file)
    assert len(trained) == 2 * 3 * 2
    taught = outcome["conditions"]["complete"]["taught"]
    assert taught["verdict"] == "better"
    assert 0 < taught["difference"]["low"] <= taught["difference"]["mean"]
    assert outcome["conditions"]["complete"]["none"]["difference"] is None
    # the run that failed is named, and its arm compared over the seed that is there
    assert outcome["failed"] == {"missing/taught/seed-1": "ended with 1: the loss is no number"}
    assert outcome["conditions"]["missing"]["taught"]["seeds"] == (0,)
    assert outcome["conditions"]["missing"]["taught"]["deviation"]["AP"] is None

    out = file.parent / "out"
    assert json.loads((out / "results.json").read_text())["reference"] == "none"
    rows = pq.read_table(out / "results.parquet").to_pylist()
    assert len(rows) == 11
    assert {row["arm"] for row in rows} == {"none", "taught", "astray"}
    page = (out / "page.html").read_text()
    for text in ("complete, in percent", "taught", "the loss is no number", "data:image/png"):
        assert text in page
    assert "http" not in page.replace("http-equiv", "").split("<script", maxsplit=1)[0].replace(
        "http://www.w3.org", ""
    )


def test_what_is_done_is_passed_over_until_it_changes(file: Path, trained: list[Job]) -> None:
    run(file)
    trained.clear()
    run(file)
    assert [job.name for job in trained] == ["missing/taught/seed-1"]
    assert "--resume" in trained[0].words
    trained.clear()
    # other labels: everything of that condition anew, and nothing else
    changed = file.read_text().replace("missing = 0.5", "missing = 0.6")
    file.write_text(changed)
    run(file)
    assert {job.name.split("/")[0] for job in trained} == {"missing"}
    assert len(trained) == 6
    assert all("--overwrite" in job.words for job in trained)
    trained.clear()
    run(file, **{"student.settings.steps": "2", "seeds": "0"})
    assert len(trained) == 6


def import_teacher(store: Path, data: Path, name: str) -> None:
    from teacher_infer.cli import main

    annotations = data / "annotations" / "instances_train2017.json"
    rows = read_annotations(annotations)["annotations"][:3]
    keys = ("image_id", "category_id", "bbox")
    results = store.parent / f"{name}.json"
    results.write_text(json.dumps([{k: row[k] for k in keys} | {"score": 0.8} for row in rows]))
    with pytest.raises(SystemExit) as ended:
        main(["import", "--store", str(store), "--name", name, "--results", str(results)])
    assert not ended.value.code


def test_a_new_teacher_trains_again_who_learns_from_all(
    file: Path, data: Path, trained: list[Job]
) -> None:
    file.write_text(file.read_text().replace('[arms.taught]\nteachers = "oracle"',
        '[arms.taught]\nteachers = "oracle"\n[arms.everyone]\nteachers = "all"'))  # fmt: skip
    run(file)
    trained.clear()
    import_teacher(file.parent / "store", data, "late")
    run(file)
    again = {job.name for job in trained} - {"missing/taught/seed-1"}
    assert {name.split("/")[1] for name in again} == {"everyone"}
    assert len(again) == 4
    assert all("--overwrite" in job.words for job in trained if job.name in again)


def test_marks_of_earlier_versions_stand_while_the_runs_agree(
    file: Path, trained: list[Job]
) -> None:
    """They were command lines; what a run recorded of itself decides."""
    run(file)
    grid = Grid(read_experiment(file))
    cell = Cell("complete", "none", 0)
    done = file.parent / "out" / "done" / "runs" / cell.name
    done.write_text("train --preset dino-micro ... {}")
    trained.clear()
    run(file)
    assert cell.name in {job.name for job in trained}, "no record, no trust"
    done.write_text("train --preset dino-micro ... {}")
    resolved = grid.student(cell)
    space = ClassSpace("raw", load_coco(grid.sample_file).categories)
    found = replace(resolved.config, model=replace(resolved.config.model, n_classes=9))
    folder = RunFolder(grid.folder(cell))
    folder.write(Resolved(found, resolved.origins), space, [], {})
    trained.clear()
    run(file)
    assert cell.name not in {job.name for job in trained}
    run(file, **{"student.settings.optim.lr": "0.5"})
    assert cell.name in {job.name for job in trained}


def test_an_old_result_does_not_stand_for_a_run_that_fails(
    file: Path, trained: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(file)
    again = module.run_here

    def run_here(todo: Sequence[Job], devices: Any, finished: Finished, _: Any) -> None:
        failing = [job for job in todo if job.name == "complete/taught/seed-0"]
        again([job for job in todo if job not in failing], devices, finished, _)
        for job in failing:
            finished(Ended(job, 1.0, "no memory"))

    monkeypatch.setattr(module, "run_here", run_here)
    outcome = run(file, **{"student.settings.steps": "2"})
    assert outcome["failed"]["complete/taught/seed-0"] == "no memory"
    assert outcome["conditions"]["complete"]["taught"]["seeds"] == (1,)


def test_labels_of_a_condition_are_written_once(file: Path, trained: list[Job]) -> None:
    run(file)
    path = file.parent / "out" / "labels" / "missing.json"
    whole = read_annotations(read_experiment(file).config.annotations("train2017"))
    assert 0 < len(json.loads(path.read_text())["annotations"]) < len(whole["annotations"])
    before = path.stat().st_mtime_ns
    run(file)
    assert path.stat().st_mtime_ns == before
    used = {job.name: settings_of(job).data.train_annotations for job in trained}
    assert {used[name] for name in used if name.startswith("missing")} == {path}
    assert {used[name] for name in used if name.startswith("complete")} == {None}


def test_unknown_teachers_are_refused_before_anything_runs(file: Path, trained: list[Job]) -> None:
    with pytest.raises(
        UsageError, match=r"arms.taught.teachers names the teacher 'oracel'.*oracle"
    ):
        run(file, **{"arms.taught.teachers": "oracel"})
    assert not trained
    assert not (file.parent / "out").exists()


@pytest.mark.slow
def test_really_trained(data: Path, store: Path, tmp_path: Path, capfd: Any) -> None:
    words = ["experiment", "--data", str(data), "--store", str(store), "--preset", "dino-micro"]
    words += ["--images", "4", "--seeds", "1", "--out", str(tmp_path / "own"), "--json"]
    words += ["student.settings.steps=1", "resamples=20", "pictures=2"]
    words += ["student.settings.batch_size=2", "student.settings.threads=1"]
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert not ended.value.code
    outcome = json.loads(capfd.readouterr().out)
    arms = outcome["conditions"]["as-given"]
    assert list(arms) == ["none", "oracle"]
    assert all(arm["mean"]["AP"] is not None for arm in arms.values())
    assert outcome["device"].startswith("CPU")
    assert len(load_coco(tmp_path / "own" / "labels" / "sample.json").images) == 4
    assert (tmp_path / "own" / "page.html").stat().st_size > 10_000
