"""Runs that stop or are killed go on bit for bit, with their own settings and data."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from student_train.errors import CheckpointError, Interrupted, RunError
from student_train.evaluation import evaluate
from student_train.runs.checkpoint import load_weights
from student_train.runs.metrics import read_metrics
from student_train.runs.run_folder import RunFolder
from student_train.runs.states import StateFolder
from student_train.training import engine
from tests.student_train.training.tiny_runs import (
    Killed,
    assert_same,
    kill,
    run,
    state,
    stop_at,
    weights,
)


@pytest.mark.slow
@pytest.mark.parametrize(("step", "tile"), [(5, "none"), (7, "48")])
def test_a_killed_run_ends_bit_identical(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, tile: str
):
    values = {"steps": 9, "save_every": 2, "optim__ema": 0.9, "augment__tile": tile}
    run(toy, tmp_path / "whole", **values)
    with monkeypatch.context() as patch:
        stop_at(patch, step, kill)
        with pytest.raises(Killed):
            run(toy, tmp_path / "cut", **values)
    printed = run(toy, tmp_path / "cut", resume=True, **values)
    assert f"resuming after step {step // 2 * 2}" in printed
    assert_same(tmp_path / "whole", tmp_path / "cut")
    best = [
        load_weights(tmp_path / name / "checkpoints/best.safetensors")[0]
        for name in ("whole", "cut")
    ]
    assert all(torch.equal(best[0][key], best[1][key]) for key in best[0])


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
