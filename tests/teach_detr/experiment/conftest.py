"""A small experiment whose students are pretended."""

import json
import shutil
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from student_train.config import TrainConfig
from student_train.evaluation.coco_metrics import coco_metrics, read_annotations
from student_train.runs.recorded import read_settings
from teach_detr.experiment import experiment as module
from teach_detr.experiment import read_experiment, run_experiment
from teach_detr.experiment.workers import Ended, Finished, Job
from teach_detr.runs.stages import Stages
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
