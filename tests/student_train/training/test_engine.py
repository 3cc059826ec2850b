"""Training runs of a tiny DINO: exact resuming, clean stops, what is written."""

import dataclasses
import io
import json
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from box_store.categories import Categories
from box_store.errors import DataError
from student_train.config import resolve
from student_train.errors import CheckpointError, Interrupted, NonFiniteLoss, RunError
from student_train.evaluation import evaluate
from student_train.losses import Criterion
from student_train.presets import load_preset
from student_train.runs.checkpoint import load_weights
from student_train.runs.metrics import read_metrics
from student_train.runs.run_folder import RunFolder
from student_train.runs.states import StateFolder
from student_train.settings.origin import ARGUMENT
from student_train.settings.overrides import Layer
from student_train.training import engine
from student_train.training.engine import Trainer
from student_train.training.launch import train

FAST = {"model.n_queries": "8", "model.top_k": "8", "eval_every": "0"}


def run(data: Path, out: Path, *, resume: bool = False, overwrite: bool = False, **values: Any):
    """Train the tiny preset; `a__b=c` sets `a.b`. What it printed."""
    settings = FAST | {"data.root": str(data)}
    settings |= {key.replace("__", "."): str(value) for key, value in values.items()}
    resolved = resolve(load_preset("dino-micro"), arguments=[Layer(ARGUMENT, settings)])
    printed = io.StringIO()
    console = Console(file=printed, width=200)
    train(resolved, out, console, resume=resume, overwrite=overwrite, command=["test"])
    return printed.getvalue()


def state(out: Path) -> dict[str, Any]:
    return StateFolder(out / "checkpoints").load()[0]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return state(out)["model"]


def assert_same(a: Path, b: Path, apart: Sequence[str] = ()) -> None:
    """Bit-identical weights."""
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    different = [key for key in first if not torch.equal(first[key], second[key])]
    assert different == list(apart)


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, action: Any) -> None:
    """Do `action(trainer)` when the training loop is about to make step `step`."""
    original = Trainer._step

    def _step(self: Trainer, *args: Any) -> int:
        if self.position.step == step:
            action(self)
        return original(self, *args)

    monkeypatch.setattr(Trainer, "_step", _step)


class Killed(BaseException):
    """Stands for SIGKILL: nothing is caught, nothing is saved."""


def kill(_: Trainer) -> None:
    raise Killed


@pytest.mark.slow
@pytest.mark.parametrize("step", [5, 7])
def test_a_killed_run_ends_bit_identical(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
):
    run(toy, tmp_path / "whole", steps=9, save_every=2, optim__ema=0.9)
    with monkeypatch.context() as patch:
        stop_at(patch, step, kill)
        with pytest.raises(Killed):
            run(toy, tmp_path / "cut", steps=9, save_every=2, optim__ema=0.9)
    printed = run(toy, tmp_path / "cut", resume=True, steps=9, save_every=2, optim__ema=0.9)
    assert f"resuming after step {step // 2 * 2}" in printed
    assert_same(tmp_path / "whole", tmp_path / "cut")
    best = [
        load_weights(tmp_path / name / "checkpoints/best.safetensors")[0]
        for name in ("whole", "cut")
    ]
    assert all(torch.equal(best[0][key], best[1][key]) for key in best[0])


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


@pytest.mark.slow
def test_resumed_metrics_have_every_record_once(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    values = {"steps": 6, "save_every": 2, "log_every": 1, "eval_every": 1}
    with monkeypatch.context() as patch:
        stop_at(patch, 5, kill)
        with pytest.raises(Killed):
            run(toy, tmp_path / "run", **values)
    run(toy, tmp_path / "run", resume=True, **values)
    records = list(read_metrics(tmp_path / "run/metrics.jsonl"))
    assert [r["step"] for r in records if r["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [r["step"] for r in records if r["kind"] == "eval"] == [3, 6]


@pytest.mark.slow
def test_an_evaluation_that_was_cut_off_is_made_up_for(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(engine, "evaluate_model", lambda *_: kill(_))
        with pytest.raises(Killed):
            run(toy, tmp_path / "run", steps=3, eval_every=1)
    printed = run(toy, tmp_path / "run", resume=True, steps=3, eval_every=1)
    assert "4 images of val2017, in percent: AP" in printed
    assert (tmp_path / "run/checkpoints/best.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_state_and_says_how_to_go_on(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    with monkeypatch.context() as patch:
        stop_at(patch, 1, lambda _: os.kill(os.getpid(), number))
        with pytest.raises(Interrupted, match="--resume") as caught:
            run(toy, tmp_path / "cut", steps=4)
    assert caught.value.exit_code == 128 + number
    assert "stopped after step 2 of 4" in str(caught.value)
    run(toy, tmp_path / "cut", resume=True, steps=4)
    run(toy, tmp_path / "whole", steps=4)
    assert_same(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_a_damaged_last_state_costs_a_few_steps_only(toy: Path, tmp_path: Path):
    run(toy, tmp_path / "run", steps=4, save_every=2)
    last = StateFolder(tmp_path / "run/checkpoints").newest()
    assert last is not None
    expected = weights(tmp_path / "run")
    last.write_bytes(last.read_bytes()[:1000])
    printed = run(toy, tmp_path / "run", resume=True, steps=4, save_every=2)
    assert f"{last.name} is damaged" in printed
    assert "resuming after step 2" in printed
    found = weights(tmp_path / "run")
    assert all(torch.equal(found[key], expected[key]) for key in expected)


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


def test_a_former_run_is_not_overwritten_unasked(toy: Path, tmp_path: Path):
    run(toy, tmp_path / "run", steps=1)
    with pytest.raises(RunError, match="holds a run already"):
        run(toy, tmp_path / "run", steps=1)
    run(toy, tmp_path / "run", steps=2, overwrite=True)
    assert state(tmp_path / "run")["position"]["step"] == 2


def test_a_resumed_run_keeps_its_settings(toy: Path, tmp_path: Path):
    run(toy, tmp_path / "run", steps=1)
    with pytest.raises(RunError, match=r"optim\.lr: 0\.001 -> 0\.1"):
        run(toy, tmp_path / "run", resume=True, steps=2, optim__lr=0.1)
    run(toy, tmp_path / "run", resume=True, steps=2)
    assert state(tmp_path / "run")["position"]["step"] == 2


def test_a_resumed_run_keeps_its_data(toy: Path, store: Path, tmp_path: Path):
    data = tmp_path / "data"
    shutil.copytree(toy, data)
    values = {"steps": 1, "teachers__store": store}
    run(data, tmp_path / "run", **values)
    record = RunFolder(tmp_path / "run").read()
    assert set(record.fingerprints) == {"train_annotations", "val_annotations", "boxes"}
    path = data / "annotations/instances_train2017.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(RunError, match=r"content of train annotations: \w{12} -> \w{12}"):
        run(data, tmp_path / "run", resume=True, **values | {"steps": 2})


def test_other_versions_and_another_cosine_are_remarked(toy: Path, tmp_path: Path):
    values = {"steps": 1, "optim__schedule": "cosine"}
    run(toy, tmp_path / "run", **values)
    content = json.loads((tmp_path / "run/config.json").read_text())
    content["versions"]["torch"] = "1.0"
    (tmp_path / "run/config.json").write_text(json.dumps(content))
    printed = run(toy, tmp_path / "run", resume=True, **values | {"steps": 2})
    assert "not bit-identical any more, versions have changed (torch: 1.0 -> " in printed
    assert "the cosine of the learning rate too" in printed


def test_a_disk_that_is_full_for_a_while_does_not_end_a_run(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    original = StateFolder.save

    def save(self: StateFolder, step: int, content: Any) -> Path:
        if step == 4:
            raise CheckpointError("cannot save the state of step 4: No space left on device")
        return original(self, step, content)

    monkeypatch.setattr(StateFolder, "save", save)
    printed = run(toy, tmp_path / "run", steps=6, save_every=2)
    assert "No space left on device; step-00000002-" in printed
    assert "training goes on" in printed
    assert state(tmp_path / "run")["position"]["step"] == 6


def test_a_small_disk_is_remarked_before_the_start(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = shutil._ntuple_diskusage(10, 9, 1)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert "warning   0.0 GiB are free at" in run(toy, tmp_path / "run", steps=1)


def test_a_signal_during_an_evaluation_ends_it(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    original = evaluate.top_k

    def top_k(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    values = {"steps": 4, "eval_every": 1, "eval_batch_size": 1}
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "top_k", top_k)
        with pytest.raises(Interrupted, match="stopped after step 3 of 4"):
            run(toy, tmp_path / "run", **values)
    run(toy, tmp_path / "run", resume=True, **values)
    records = [r for r in read_metrics(tmp_path / "run/metrics.jsonl") if r["kind"] == "eval"]
    assert [r["step"] for r in records] == [3, 4]


def test_resuming_nothing_starts(toy: Path, tmp_path: Path):
    assert "nothing to resume: starting" in run(toy, tmp_path / "run", resume=True, steps=1)


def test_a_state_of_another_model_does_not_fit(toy: Path, tmp_path: Path):
    run(toy, tmp_path / "run", steps=1)
    content = json.loads((tmp_path / "run/config.json").read_text())
    content["config"]["model"]["n_queries"] = 9
    (tmp_path / "run/config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="does not fit"):
        run(toy, tmp_path / "run", resume=True, steps=2, model__n_queries=9)


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
