"""Runs in a bucket: trained, killed, gone on with elsewhere, and used, by their URL."""

import io
import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from torch import Tensor
from typer.testing import CliRunner

from box_store.places.lease import TakenOver
from box_store.places.locations import RemoteError, RemotePath, location, staged
from student_train.cli import app
from student_train.config import resolve
from student_train.errors import RunError
from student_train.models import build_student
from student_train.presets import load_preset
from student_train.runs.metrics import read_metrics
from student_train.runs.mirror import Mirror
from student_train.runs.publisher import Publisher
from student_train.runs.states import SavedStates, StateFolder
from student_train.runs.trained import load_student
from student_train.settings.origin import ARGUMENT
from student_train.settings.overrides import Layer
from student_train.training.initialising import initialise
from student_train.training.launch import train
from tests.forked import context

SETTINGS = {
    "model.n_queries": "8",
    "model.top_k": "8",
    "epochs": "100",
    "steps": "6",
    "save_every": "2",
    "log_every": "3",
    "eval_every": "0",
    "data.workers": "0",
    "threads": "1",
}


@pytest.fixture
def url(server: Any, request: Any) -> RemotePath:
    found = location(server.url(f"bucket/{request.node.name}/run"))
    assert isinstance(found, RemotePath)
    return found


def go(data: Any, out: Any, *, overwrite: bool = False, **settings: str) -> str:
    """Train or go on; what was said."""
    values = SETTINGS | {"data.root": str(data)} | settings
    resolved = resolve(load_preset("dino-micro"), arguments=[Layer(ARGUMENT, values)])
    said = io.StringIO()
    train(
        resolved,
        out,
        Console(file=said, width=1000),
        resume=not overwrite,
        overwrite=overwrite,
        command=["test"],
    )
    return said.getvalue()


def go_and_die(data: str, out: str, environment: dict[str, str]) -> None:
    """Train, until SIGKILL comes right after the state of step 2 has got to the URL."""
    os.environ.update(environment)
    put_list = Mirror._put_list

    def dies(self: Mirror, entries: Any) -> None:
        put_list(self, entries)
        if entries:
            os.kill(os.getpid(), 9)

    Mirror._put_list = dies  # type: ignore[method-assign]
    go(data, out)


def in_a_process(target: Any, *arguments: Any) -> int | None:
    process = context().Process(target=target, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def forget_this_machine() -> None:
    shutil.rmtree(os.environ["TEACH_DETR_CACHE"])


def content(run: Any) -> tuple[Any, ...]:
    """States, best weights and records of a run, tensors as bytes."""
    states = SavedStates(run / "checkpoints")
    state = states.load()[0]
    # where the data lie
    state.pop("config")
    clocks = ("images_per_second", "seconds_left", "data_wait", "memory_gib")
    records = [
        {k: v for k, v in record.items() if k not in clocks}
        for record in read_metrics(staged(run / "metrics.jsonl"))
    ]
    steps = [entry.step for entry in states.entries()]
    best = load_student(run).model.state_dict()
    return steps, flat(state), flat(best), records


def flat(value: Any) -> Any:
    if isinstance(value, Tensor):
        return (value.dtype, tuple(value.shape), value.contiguous().numpy().tobytes())
    if isinstance(value, dict):
        return {name: flat(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [flat(item) for item in value]
    return value


@pytest.fixture(scope="module")
def whole(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happened to."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    go(toy, out)
    return out


@pytest.mark.slow
def test_killed_and_resumed_on_another_machine_it_ends_bit_identical(
    toy: Path, whole: Path, url: RemotePath, server: Any
) -> None:
    environment = {
        key: value for key, value in os.environ.items() if "AWS" in key or "TEACH" in key
    }
    assert in_a_process(go_and_die, str(toy), str(url), environment) == -9
    assert [entry.step for entry in SavedStates(url / "checkpoints").entries()] == [2]
    forget_this_machine()
    assert "resuming after step 2" in go(toy, url)
    assert content(url) == content(whole)
    names = server.names(f"bucket/{url.parent.name}")
    assert sum(name.endswith(".pt") for name in names) == 2
    assert "run/results/val2017.metrics.json" in names


def test_a_network_that_fails_for_a_while_costs_nothing(
    toy: Path, whole: Path, url: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, calls = RemotePath.upload, []

    def fails(self: RemotePath, file: Any) -> None:
        calls.append(self.name)
        if 3 <= len(calls) <= 5:
            raise RemoteError(5, f"cannot write {self}: no route to host")
        upload(self, file)

    monkeypatch.setattr(RemotePath, "upload", fails)
    monkeypatch.setattr(
        "student_train.runs.working_folder.Publisher", partial(Publisher, first_delay_s=0.01)
    )
    go(toy, url)
    assert len(calls) > 5
    forget_this_machine()
    assert content(url) == content(whole)


def test_a_network_that_stays_away_leaves_the_whole_run_here_and_says_so(
    toy: Path, whole: Path, url: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = RemotePath.upload

    def fails(self: RemotePath, file: Any) -> None:
        # from when the run has begun
        if self.name != "lease.json":
            raise RemoteError(5, f"cannot write {self}: no route to host")
        upload(self, file)

    with monkeypatch.context() as patch:
        patch.setattr(RemotePath, "upload", fails)
        patch.setattr(
            "student_train.runs.working_folder.Publisher", partial(Publisher, patience_s=0.0)
        )
        with pytest.raises(RunError, match=r"is behind the run.*step 0 .*--resume --out s3://"):
            go(toy, url)
    assert not (url / "config.json").exists()
    assert "all its steps are done" in go(toy, url)
    assert content(url) == content(whole)


def test_a_trainer_whose_run_goes_on_elsewhere_stops_and_writes_nothing(
    toy: Path, url: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, seen = StateFolder.save, []

    def another_comes(self: StateFolder, step: int, state: Any) -> Path:
        if step == 4:
            (url / "lease.json").put(b'{"owner": "another", "pid": 7, "host": "elsewhere"}')
            seen.append({path.name for path in (url / "checkpoints").iterdir()})
        return save(self, step, state)

    monkeypatch.setattr(StateFolder, "save", another_comes)
    with pytest.raises(TakenOver, match="was taken over by process 7 on elsewhere"):
        go(toy, url, steps="1000", save_every="4")
    assert {path.name for path in (url / "checkpoints").iterdir()} == seen[0]
    assert b"another" in (url / "lease.json").read_bytes()


def test_a_run_at_a_url_is_used_by_its_url(
    toy: Path, whole: Path, url: RemotePath, server: Any
) -> None:
    server.upload(whole, f"bucket/{url.parent.name}/run")
    picture = next((toy / "val2017").iterdir())

    def call(*arguments: Any) -> Any:
        done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
        assert done.exit_code == 0, (done.output, done.exception)
        return json.loads(done.stdout)

    remote, local = (call("eval", run, "--device", "cpu") for run in (url, whole))
    assert remote["run"] == str(url)
    assert remote["AP"] == local["AP"]
    assert (url / "results" / "val2017.confusion.json").is_file()
    seen = call("predict", url, picture, "--device", "cpu")
    assert seen[0]["picture"] == str(url / "predictions" / f"{picture.stem}.jpg")
    assert location(seen[0]["picture"]).is_file()
    rows = call("compare", url, whole)
    assert rows["runs"][0]["AP"] == rows["runs"][1]["AP"]
    assert rows["differences"] == {} or rows["differences"] == []
    model = build_student(load_student(whole).config.model)
    assert initialise(model, url, load_student(whole).class_space).missing == ()
    # what lies there is not trained over by mistake
    done = CliRunner().invoke(app, ["train", "--preset", "dino-micro", "--out", str(url)])
    assert isinstance(done.exception, RunError)
    assert "holds a run already" in str(done.exception)


def test_a_dry_run_writes_nothing(toy: Path, url: RemotePath, server: Any) -> None:
    arguments = ["train", "--preset", "dino-micro", "--data", str(toy), "--out", str(url)]
    done = CliRunner().invoke(app, [*arguments, "--teachers", "none", "--dry-run"])
    assert done.exit_code == 0, done.exception
    assert "nothing was written" in done.output
    assert server.names(f"bucket/{url.parent.name}") == []


def test_overwriting_replaces_the_run(toy: Path, whole: Path, url: RemotePath, server: Any) -> None:
    server.upload(whole, f"bucket/{url.parent.name}/run")
    go(toy, url, overwrite=True, steps="1", **{"data.val_split": "none"})
    assert [entry.step for entry in SavedStates(url / "checkpoints").entries()] == [1]
    assert load_student(url).config.steps == 1
    names = server.names(f"bucket/{url.parent.name}/run/checkpoints")
    assert len(names) == 3
