"""Experiments from end to end: what is trained, what is passed over, and what comes out."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from box_store import load_coco
from box_store.categories import ClassSpace
from box_store.errors import UsageError
from student_train.config import TrainConfig
from student_train.evaluation.coco_metrics import coco_metrics, read_annotations
from student_train.runs.recorded import read_settings
from student_train.runs.run_folder import RunFolder
from student_train.settings.overrides import Resolved
from teach_detr import cli
from teach_detr.experiment import experiment as module
from teach_detr.experiment import read_experiment, run_experiment
from teach_detr.experiment.figures import interval_panels
from teach_detr.experiment.grid import Cell, Grid
from teach_detr.experiment.outcome import gather
from teach_detr.experiment.racing import heats
from teach_detr.experiment.tables import summary_lines
from teach_detr.experiment.workers import Ended, Finished, Job
from teach_detr.runs.stages import StageError, Stages
from teach_detr.scenes.painting import VAL_FIRST_ID, make_split

FILE = """
out = "{out}"
seeds = [0, 1]
resamples = 40
pictures = 2
[data]
root = "{root}"
[store]
path = "{store}"
[student]
preset = "dino-micro"
[student.settings]
steps = 1
batch_size = 2
threads = 1
augment = {{ short_sides = [64], eval_short_side = 64 }}
[conditions.complete]
[conditions.missing]
missing = 0.5
[wrong.astray]
of = "oracle"
[arms.none]
teachers = "none"
[arms.taught]
teachers = "oracle"
[arms.astray]
teachers = "astray"
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six scenes to train on and eight to evaluate on."""
    root = tmp_path_factory.mktemp("data")
    make_split(root, "train2017", 6, 0, ["day"])
    make_split(root, "val2017", 8, 1, ["day"], first_id=VAL_FIRST_ID)
    return root


@pytest.fixture(scope="module")
def store(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one teacher, which knows the truth."""
    from teacher_infer.cli import main

    folder = tmp_path_factory.mktemp("boxes")
    annotations = data / "annotations" / "instances_train2017.json"
    rows = read_annotations(annotations)["annotations"]
    results = [
        {k: row[k] for k in ("image_id", "category_id", "bbox")} | {"score": 0.9} for row in rows
    ]
    (folder / "results.json").write_text(json.dumps(results))
    words = ["import", "--store", str(folder / "store"), "--name", "oracle"]
    words += ["--results", str(folder / "results.json"), "--annotations", str(annotations)]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert not ended.value.code
    return folder / "store"


@pytest.fixture
def file(tmp_path: Path, data: Path, store: Path) -> Path:
    # an experiment may import teachers
    own = shutil.copytree(store, tmp_path / "store")
    path = tmp_path / "experiment.toml"
    path.write_text(FILE.format(out=tmp_path / "out", root=data, store=own))
    return path


def run(file: Path, **overrides: str) -> dict[str, Any]:
    plan = read_experiment(file, overrides)
    outcome = run_experiment(plan, file.parent, dry_run=False, console=Console(quiet=True))
    return outcome


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, data: Path) -> list[Job]:
    """In place of training, runs leave detections behind that are better with the oracle."""
    jobs: list[Job] = []
    annotations = data / "annotations" / "instances_val2017.json"
    truth = read_annotations(annotations)["annotations"]

    def run_here(todo: Sequence[Job], devices: Any, finished: Finished, _: Any) -> None:
        for job in todo:
            jobs.append(job)
            if "missing/taught/seed-1" in job.name:
                finished(Ended(job, 1.0, "ended with 1: the loss is no number"))
                continue
            noise = 1.0 if "taught" in job.name else 9.0
            rng = np.random.default_rng(len(job.name))
            rows = [
                {
                    "image_id": row["image_id"],
                    "category_id": row["category_id"],
                    "bbox": [float(v) for v in np.asarray(row["bbox"]) + rng.normal(0, noise, 4)],
                    "score": float(rng.random()),
                }
                for row in truth
            ]
            rows = [row for row in rows if min(row["bbox"][2:]) > 1]
            results = Path(job.words[job.words.index("--out") + 1]) / "results"
            results.mkdir(parents=True, exist_ok=True)
            (results / "val2017.json").write_text(json.dumps(rows))
            metrics = coco_metrics(annotations, rows).to_json()
            (results / "val2017.metrics.json").write_text(json.dumps(metrics))
            finished(Ended(job, 2.0, None))

    monkeypatch.setattr(module, "run_here", run_here)
    monkeypatch.setattr(Stages, "python", in_this_process)
    return jobs


def settings_of(job: Job) -> TrainConfig:
    """What a run is told to train."""
    return read_settings(Path(job.words[job.words.index("--config") + 1])).config


def in_this_process(self: Stages, name: str, *arguments: object, quiet: bool = False) -> None:
    """The same command without a process of its own, which takes seconds to start."""
    with pytest.raises(SystemExit) as ended:
        import_module(name).main(list(map(str, arguments)))
    assert not ended.value.code


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


def test_a_race_leaves_out_what_is_sure(file: Path, trained: list[Job]) -> None:
    text = file.read_text().replace("seeds = [0, 1]", "seeds = [0, 1, 2, 3]\nrace = true")
    file.write_text(text.replace("[conditions.missing]\nmissing = 0.5\n", ""))
    outcome = run(file)
    names = [job.name for job in trained]
    # better from the start: three seeds say so, and the fourth is not trained
    assert sum("taught" in name for name in names) == 3
    assert outcome["conditions"]["complete"]["taught"]["verdict"] == "better"
    # an arm that nothing can be said of runs to the end, and the reference with it
    unsure = outcome["conditions"]["complete"]["astray"]["difference"]
    assert (sum("astray" in name for name in names) == 4) == (unsure["n_seeds"] == 4)
    before = len(trained)
    assert run(file)["conditions"] == outcome["conditions"]
    assert len(trained) == before


def test_a_race_looks_from_the_third_seed_on() -> None:
    cells = [Cell("c", arm, seed) for seed in (7, 8, 9, 5, 6) for arm in ("none", "a")]
    found = list(heats(cells, (7, 8, 9, 5, 6)))
    assert [[cell.seed for cell in heat] for heat in found] == [[7, 7, 8, 8, 9, 9], [5, 5], [6, 6]]
    assert list(heats(cells[:2], (7,))) == [cells[:2]]


def test_nothing_but_failures_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_here(jobs: Sequence[Job], devices: Any, finished: Finished, _: Any) -> None:
        for job in jobs:
            finished(Ended(job, 1.0, "no memory"))

    monkeypatch.setattr(module, "run_here", run_here)
    monkeypatch.setattr(Stages, "python", in_this_process)
    with pytest.raises(StageError, match=r"no run of .* came to its end.*no memory"):
        run(file)


def test_students_that_learned_nothing_are_not_compared_in_silence(
    file: Path, trained: list[Job]
) -> None:
    run(file)
    grid = Grid(read_experiment(file))
    outcome = gather(grid, {})
    assert not any("too little" in line for line in summary_lines(outcome))
    none = outcome.conditions["complete"]["none"]
    none.mean["AP"] = 0.004
    assert any(
        line.startswith("complete: none reaches AP 0.4 only") for line in summary_lines(outcome)
    )


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
