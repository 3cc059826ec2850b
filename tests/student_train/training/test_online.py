"""Teachers in the training process, and training without ground truth."""

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console

from student_train.config import resolve
from student_train.errors import ConfigError
from student_train.presets import load_preset
from student_train.runs.checkpoint import load_weights
from student_train.runs.metrics import read_metrics
from student_train.settings.origin import ARGUMENT
from student_train.settings.overrides import Layer
from student_train.training.launch import train

DEFAULTS = {"steps": 2, "log_every": 1, "eval_every": 0, "threads": 1, "data.val_split": "none"}


def run(data: Path, out: Path, **settings: object) -> list[dict]:
    """Train the smallest DINO; the records of its steps."""
    values = {key.replace("__", "."): value for key, value in settings.items()}
    layer = Layer(ARGUMENT, {"data.root": data, **DEFAULTS, **values})
    train(resolve(load_preset("dino-micro"), arguments=[layer]), out, Console(file=io.StringIO()))
    return [row for row in read_metrics(out / "metrics.jsonl") if row["kind"] == "train"]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_weights(out / "checkpoints" / "best.safetensors")[0]


EMA = {"teachers__online": "ema", "optim__ema": 0.9, "teachers__online_score_floor": 0.0}


def test_the_average_of_the_student_teaches_it(toy: Path, tmp_path: Path):
    rows = run(toy, tmp_path / "run", **EMA)
    assert all(row["loss"]["teacher:ema"] > 0 for row in rows)
    assert "teacher:ema/class/0" in rows[0]["parts"]


def test_online_teachers_begin_at_their_epoch(toy: Path, tmp_path: Path):
    # three steps an epoch
    rows = run(toy, tmp_path / "run", steps=4, teachers__online_start=1, **EMA)
    assert [row["loss"]["teacher:ema"] > 0 for row in rows] == [False, False, False, True]


def test_an_average_that_is_sure_of_nothing_teaches_nothing(toy: Path, tmp_path: Path):
    rows = run(toy, tmp_path / "run", **{**EMA, "teachers__online_score_floor": 1.0})
    assert all(row["loss"]["teacher:ema"] == 0 for row in rows)


def test_an_average_has_to_be_kept(toy: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"needs the average.*optim\.ema"):
        run(toy, tmp_path / "run", teachers__online="ema")


def test_an_earlier_run_teaches_and_stays_as_it_is(toy: Path, tmp_path: Path):
    run(toy, tmp_path / "first", steps=1)
    before = weights(tmp_path / "first")
    rows = run(
        toy,
        tmp_path / "second",
        teachers__online=str(tmp_path / "first"),
        teachers__online_score_floor=0.0,
        loss__teacher__coefficients={"first": 0.5},
    )
    assert all(row["loss"]["teacher:first"] > 0 for row in rows)
    after = weights(tmp_path / "first")
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.slow
def test_no_teachers_means_no_online_ones_either(toy: Path, tmp_path: Path):
    run(toy, tmp_path / "plain", optim__ema=0.9)
    run(toy, tmp_path / "none", teachers__names="none", **EMA)
    first, second = weights(tmp_path / "plain"), weights(tmp_path / "none")
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture
def unlabelled(toy: Path, tmp_path: Path) -> Path:
    """The toy's images without one annotation."""
    data = tmp_path / "unlabelled"
    shutil.copytree(toy, data)
    path = data / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "annotations": []}))
    return data


def test_teachers_alone_train_on_images_without_annotations(
    unlabelled: Path, store: Path, tmp_path: Path
):
    rows = run(
        unlabelled, tmp_path / "run", teachers__store=store, loss__truth=0, loss__denoising=0
    )
    loss = rows[0]["loss"]
    taught = loss["teacher:sharp"] + loss["teacher:late"]
    assert taught > 0
    assert loss["total"] == pytest.approx(taught)
    assert rows[0]["grad_norm"] > 0


def test_boxes_of_teachers_may_be_noised_and_restored(
    unlabelled: Path, store: Path, tmp_path: Path
):
    settings = {"teachers__store": store, "teachers__names": "sharp", "loss__truth": 0}
    plain = run(unlabelled, tmp_path / "plain", **settings)
    noised = run(
        unlabelled,
        tmp_path / "noised",
        loss__teacher__groups="matching,denoising",
        **settings,
    )
    # there is no ground truth to make denoising queries from
    assert plain[0]["loss"].get("denoising", 0) == 0
    assert noised[0]["loss"]["denoising"] > 0
