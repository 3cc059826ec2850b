"""Training runs of a tiny DINO: what they learn, write and refuse."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from box_store.categories import Categories
from student_train.errors import NonFiniteLoss
from student_train.losses import Criterion
from student_train.runs.metrics import read_metrics
from student_train.runs.run_folder import RunFolder
from student_train.training import engine
from student_train.training.engine import Trainer
from tests.student_train.training.tiny_runs import (
    assert_same,
    run,
    state,
    stop_at,
    weights,
)


def break_the_class_head(trainer: Trainer) -> None:
    for name, parameter in trainer.model.named_parameters():
        if "classes" in name:
            parameter.data.fill_(float("nan"))


def test_predictions_that_are_not_finite_stop_the_run(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stop_at(monkeypatch, 3, break_the_class_head)
    with pytest.raises(NonFiniteLoss, match=r"at step 4.*step-00000002-.*before it.*--init"):
        run(toy, tmp_path / "run", steps=4, save_every=2)
    # broken weights are not saved
    assert state(tmp_path / "run")["position"]["step"] == 2


def test_a_loss_that_is_not_finite_is_named_by_its_parts(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def break_the_box_loss(trainer: Trainer) -> None:
        loss = dataclasses.replace(trainer.config.loss, l1_loss=1e39)  # beyond float32
        trainer.criterion = Criterion(loss)

    stop_at(monkeypatch, 1, break_the_box_loss)
    with pytest.raises(NonFiniteLoss, match=r"step 2: not finite.*truth/box/0.*step-00000001-"):
        run(toy, tmp_path / "run", steps=4)
    found = state(tmp_path / "run")
    assert found["position"]["step"] == 1
    assert all(tensor.isfinite().all() for tensor in found["model"].values())


def test_a_gradient_that_is_not_finite_stops_the_run(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine, "clip_gradients", lambda *_: torch.tensor(float("inf")))
    with pytest.raises(NonFiniteLoss, match="step 1: the gradient is not finite"):
        run(toy, tmp_path / "run", steps=2)


@pytest.mark.slow
def test_no_teachers_is_bit_identical_to_no_store(toy: Path, store: Path, tmp_path: Path):
    run(toy, tmp_path / "plain", steps=3)
    run(toy, tmp_path / "none", steps=3, teachers__store=store, teachers__names="none")
    assert_same(tmp_path / "plain", tmp_path / "none")


def test_teachers_change_the_result_and_have_their_own_loss(toy: Path, store: Path, tmp_path: Path):
    run(toy, tmp_path / "plain", steps=2, log_every=1)
    printed = run(toy, tmp_path / "taught", steps=2, log_every=1, teachers__store=store)
    assert "teacher late: 12 boxes in 6 of 12 training images" in printed
    assert "sharp" in printed
    record = next(read_metrics(tmp_path / "taught/metrics.jsonl"))
    assert record["loss"]["teacher:sharp"] > 0
    assert sum(v for k, v in record["loss"].items() if k != "total") == pytest.approx(
        record["loss"]["total"], rel=1e-4
    )
    assert "teacher:sharp/class/0" in record["parts"]
    first, second = weights(tmp_path / "plain"), weights(tmp_path / "taught")
    assert any(not torch.equal(first[key], second[key]) for key in first)


def test_watching_teachers_changes_nothing_but_the_record(toy: Path, store: Path, tmp_path: Path):
    taught = {"teachers.store": store, "teachers.choose": "none"}
    run(toy, tmp_path / "blind", **taught)
    run(toy, tmp_path / "watched", **taught, **{"teachers.watch_every": 1})
    assert_same(tmp_path / "blind", tmp_path / "watched")
    rows = [r for r in read_metrics(tmp_path / "watched/metrics.jsonl") if r["kind"] == "train"]
    assert {"sharp", "late"} == set(rows[0]["agreement"])
    assert all(-1 <= value <= 1 for row in rows for value in row["agreement"].values())
    # the boxes of one are the annotations
    assert rows[0]["agreement"]["sharp"] > 0.5
    assert all("agreement" not in r for r in read_metrics(tmp_path / "blind/metrics.jsonl"))


def test_teachers_can_be_fused_into_one(toy: Path, store: Path, tmp_path: Path):
    run(toy, tmp_path / "run", steps=1, teachers__store=store, teachers__combine="fused")
    record = next(read_metrics(tmp_path / "run/metrics.jsonl"))
    assert "teacher:fused" in record["loss"]
    assert "teacher:sharp" not in record["loss"]


def test_a_batch_can_be_split_to_save_memory(toy: Path, tmp_path: Path):
    printed = run(toy, tmp_path / "run", steps=4, optim__accumulate=2, log_every=1)
    assert "schedule  4 steps of 4 images, 3 an epoch" in printed
    assert [
        r["step"] for r in read_metrics(tmp_path / "run/metrics.jsonl") if r["kind"] == "train"
    ] == [1, 2, 3, 4]


def test_the_run_folder_tells_what_was_run(toy: Path, tmp_path: Path):
    run(toy, tmp_path / "run", steps=2, eval_every=1)
    content = json.loads((tmp_path / "run/config.json").read_text())
    assert content["origins"]["steps"] == "argument"
    assert content["origins"]["model.n_classes"] == "data"
    assert content["config"]["model"]["n_classes"] == 3
    assert content["versions"]["torch"]
    assert Categories.from_coco(content["classes"]["categories"]).names == ("red", "green", "blue")
    assert RunFolder(tmp_path / "run").read().config.steps == 2
    results = json.loads((tmp_path / "run/results/val2017.json").read_text())
    assert {row["category_id"] for row in results} <= {2, 5, 9}


def test_an_image_that_is_missing_is_replaced_and_reported(toy: Path, tmp_path: Path):
    data = tmp_path / "data"
    shutil.copytree(toy, data)
    (data / "train2017/003.png").unlink()
    (data / "val2017/002.png").write_bytes(b"no png")
    printed = run(data, tmp_path / "run", steps=3)
    assert "skipped: no image file" in printed
    assert "003.png" in printed
    assert "step 3/3" in printed
    metrics = json.loads((tmp_path / "run/results/val2017.metrics.json").read_text())
    assert metrics["n_images"] == 4


@pytest.mark.slow
def test_a_student_learns_what_it_is_shown(toy: Path, tmp_path: Path):
    """Loss falls well below its start on 12 pictures of rectangles."""
    run(
        toy,
        tmp_path / "run",
        epochs=20,
        log_every=10,
        data__val_split="none",
        optim__drop_epochs=19,
        model__n_queries=20,
    )
    totals = [r["loss"]["total"] for r in read_metrics(tmp_path / "run/metrics.jsonl")]
    assert totals[-1] < 0.8 * totals[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_trains_in_bf16_and_resumes(toy: Path, store: Path, tmp_path: Path):
    values = {"device": "cuda", "teachers__store": store, "log_every": 1}
    printed = run(toy, tmp_path / "run", steps=2, **values)
    assert "bf16 autocast" in printed
    run(toy, tmp_path / "run", resume=True, steps=4, **values)
    records = [r for r in read_metrics(tmp_path / "run/metrics.jsonl") if r["kind"] == "train"]
    assert [r["step"] for r in records] == [1, 2, 3, 4]
    assert all(r["memory_gib"] > 0 and r["loss"]["total"] > 0 for r in records)
    assert all(t.isfinite().all() for t in weights(tmp_path / "run").values())
