"""Which weights are a run's best, and going back to them."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from box_store.errors import DataError
from student_train.evaluation import evaluate
from student_train.runs.checkpoint import load_weights
from student_train.training import engine
from student_train.training.engine import Trainer
from tests.student_train.training.tiny_runs import (
    run,
    stop_at,
)


def test_training_goes_back_to_the_best_weights_once(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[tuple[bool, float, bool]] = []

    def look(trainer: Trainer) -> None:
        best, _ = load_weights(trainer.folder.best)
        mine = trainer.model.state_dict()
        assert trainer.average is not None
        same = all(torch.equal(mine[key], value) for key, value in best.items())
        seen.append((same, trainer.average.decay, trainer.position.restarted))

    for step in (5, 6, 7):
        stop_at(monkeypatch, step, look)
    printed = run(
        toy, tmp_path / "run", steps=8, eval_every=1, log_every=1, optim__ema=0.5,
        optim__restart_epoch=2, optim__restart_ema=0.25,
    )  # fmt: skip
    assert seen == [(False, 0.5, False), (True, 0.25, True), (False, 0.25, True)]
    assert printed.count("restart   from the best weights") == 1


def test_without_an_evaluation_there_is_nothing_to_go_back_to(toy: Path, tmp_path: Path):
    printed = run(toy, tmp_path / "run", steps=4, optim__restart_epoch=1)
    assert "no evaluation has chosen best weights" in printed


def test_without_an_annotated_object_the_newest_weights_are_the_best(toy: Path, tmp_path: Path):
    data = tmp_path / "data"
    shutil.copytree(toy, data)
    file = data / "annotations/instances_val2017.json"
    table = json.loads(file.read_text())
    file.write_text(json.dumps(table | {"annotations": []}))
    printed = run(data, tmp_path / "run", epochs=2, batch_size=6, eval_every=1)
    assert printed.count("AP is undefined, no object of val2017 is annotated") == 2
    _, about = load_weights(tmp_path / "run/checkpoints/best.safetensors")
    assert about["step"] == 4


def test_of_equal_evaluations_the_newer_is_the_best(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    original = engine.evaluate_model

    def always_the_same(*args: Any) -> Any:
        found = original(*args)
        return dataclasses.replace(
            found,
            metrics=evaluate.coco_metrics(
                toy / "annotations/instances_val2017.json", [], image_ids=[1, 2, 3, 4]
            ),
        )

    monkeypatch.setattr(engine, "evaluate_model", always_the_same)
    run(toy, tmp_path / "run", epochs=2, batch_size=6, eval_every=1)
    _, about = load_weights(tmp_path / "run/checkpoints/best.safetensors")
    assert (about["step"], about["metrics"]["AP"]) == (4, 0.0)


def test_images_that_evaluation_can_not_use_are_said_or_refused(toy: Path, tmp_path: Path):
    data = tmp_path / "data"
    shutil.copytree(toy, data)
    files = sorted((data / "val2017").iterdir())
    files[0].write_bytes(b"no image")
    printed = run(data, tmp_path / "run", steps=1, batch_size=2)
    assert "1 image of val2017 could not be used and count as images without" in printed
    for path in files:
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of the 4 images"):
        run(data, tmp_path / "other", steps=1, batch_size=2)
