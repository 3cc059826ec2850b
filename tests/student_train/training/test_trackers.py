"""Trackers see what metrics.jsonl says, and never cost a run."""

import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from student_train.config import LogConfig
from student_train.errors import ConfigError
from student_train.presets import load_preset
from student_train.runs.run_folder import RunFolder
from student_train.training.trackers import Trackers

RECORD = {
    "step": 4,
    "epoch": 2.0,
    "split": "val",
    "loss": {"total": 1.5, "teacher:yolox": 0.5},
    "per_class": [{"AP": 1.0}],
    "APs": None,
}


def trackers(tmp_path: Path, *names: Any, offline: bool = False) -> Trackers:
    config = replace(load_preset("dino-micro"), log=LogConfig(to=names, offline=offline))
    return Trackers(config, RunFolder(tmp_path))


class FakeRun:
    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.broken = False
        self.finished = False

    def log(self, values: dict[str, float], step: int) -> None:
        if self.broken:
            raise ConnectionError("no network")
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    fake = types.SimpleNamespace(asked=[], run=FakeRun())

    def init(**options: Any) -> FakeRun:
        fake.asked.append(options)
        return fake.run

    module = types.ModuleType("wandb")
    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return fake


def test_wandb_gets_flat_numbers_and_resumes_its_run(tmp_path: Path, wandb: Any):
    first = trackers(tmp_path, "wandb", offline=True)
    first.open(0)
    assert first.log("train", RECORD) == ""
    assert first.close() == ""
    trackers(tmp_path, "wandb").open(4)
    assert wandb.run.logged == [
        (4, {"train/epoch": 2.0, "train/loss/total": 1.5, "train/loss/teacher:yolox": 0.5})
    ]
    assert wandb.run.finished
    one, two = wandb.asked
    assert (one["mode"], two["mode"]) == ("offline", None)
    assert one["id"] == two["id"]
    assert one["config"]["preset"] == "dino-micro"


def test_a_tracker_that_fails_is_left_out(tmp_path: Path, wandb: Any):
    found = trackers(tmp_path, "wandb")
    found.open(0)
    wandb.run.broken = True
    assert "wandb failed and is left out from now on: no network" in found.log("train", RECORD)
    assert found.log("train", RECORD) == ""


def test_tensorboard_writes_event_files(tmp_path: Path):
    pytest.importorskip("tensorboard")
    found = trackers(tmp_path, "tensorboard")
    found.open(0)
    assert found.log("train", RECORD) == ""
    found.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"train/loss/teacher:yolox" in events.read_bytes()


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_a_missing_package_names_its_extra(tmp_path: Path, monkeypatch, name: str):
    module = {"wandb": "wandb", "tensorboard": "torch.utils.tensorboard"}[name]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"pip install 'teach-detr\[{name}\]'"):
        trackers(tmp_path, name).open(0)
