"""Two processes equal one with the doubled batch: losses, and weights after the step."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from box_store.errors import TeachDetrError
from student_train.config import resolve
from student_train.data.order import Order
from student_train.errors import ConfigError, RunError
from student_train.evaluation import evaluate, of_run
from student_train.evaluation.of_run import evaluate_run
from student_train.machine.distributed import World, join_world
from student_train.presets import load_preset
from student_train.runs.checkpoint import load_weights
from student_train.runs.metrics import read_metrics
from student_train.runs.states import StateFolder
from student_train.settings.origin import ARGUMENT
from student_train.settings.overrides import Layer
from student_train.training.launch import train as train_run
from tests.forked import Forked, context
from tests.tally import Tally

SAVED = "state saved, and a sentence of each process that is left"

# images of one size, no flip and no crop: both see the same pixels with the same padding; frozen
# norms have no statistics of their own; denoising draws other noise on every process
SETTINGS = (
    "batch_size=4",
    "steps=2",
    "log_every=1",
    "optim.lr=1e-4",
    "optim.backbone_lr=1e-4",
    "model.norm=frozen",
    "model.dn_number=0",
    "model.n_queries=8",
    "model.top_k=8",
    "augment.flip=0",
    "augment.crop=0",
    "augment.short_sides=64",
    "eval_every=0",
    "device=cpu",
    "threads=1",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def train(toy: Path, store: Path, out: Path, n_processes: int) -> None:
    command = ["train", "--preset", "dino-micro", "--data", toy, "--store", store, "--out", out]
    words = [*map(str, command), *SETTINGS]
    if n_processes == 1:
        alone = Forked("student_train.cli", words)
        said, _ = alone.communicate()
        assert alone.returncode == 0, said
        return
    start = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(n_processes)),
        *("--master-addr", "127.0.0.1", "--master-port", str(free_port())),
    ]
    done = subprocess.run(
        [*start, "-m", "student_train.cli", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_equal_one_with_the_doubled_batch(toy: Path, store: Path, tmp_path: Path):
    train(toy, store, tmp_path / "one", 1)
    train(toy, store, tmp_path / "two", 2)
    one, two = (
        [r for r in read_metrics(tmp_path / name / "metrics.jsonl") if r["kind"] == "train"]
        for name in ("one", "two")
    )
    assert [r["step"] for r in one] == [r["step"] for r in two] == [1, 2]
    # the first step starts from equal weights, the second from weights after one equal step
    for first, second, tolerance in zip(one, two, (1e-4, 1e-2), strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=tolerance)
        assert second["grad_norm"] == pytest.approx(first["grad_norm"], rel=100 * tolerance)
    a, b = (
        StateFolder(tmp_path / name / "checkpoints").load()[0]["model"] for name in ("one", "two")
    )
    # two steps of Adam move a weight by at most about 2 x lr, whatever its gradient
    assert all(torch.allclose(a[key], b[key], atol=4.1e-4) for key in a)
    same = sum(int(torch.isclose(a[k], b[k], atol=2e-5).sum()) for k in a)
    assert same > 0.95 * sum(value.numel() for value in a.values())
    counts = [
        json.loads((tmp_path / name / "results/val2017.metrics.json").read_text())["n_detections"]
        for name in ("one", "two")
    ]
    assert counts[0] == counts[1] > 0
    load_weights(tmp_path / "two/checkpoints/best.safetensors")


def as_rank(
    rank: int, port: int, said: Path | None, work: Callable[..., None], *arguments: Any
) -> None:
    """What torchrun does to each of two processes; what it said at its end is in SAID/RANK."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    # as in a process of torchrun's, which no server of forks has started
    multiprocessing.set_start_method("fork", force=True)
    try:
        work(*arguments)
    except TeachDetrError as error:
        if said is not None:
            (said / str(rank)).write_text(str(error))
        sys.exit(error.exit_code)


def start_pair(work: Callable[..., None], *arguments: Any, said: Path | None = None) -> list[Any]:
    """Two processes of one group, forked from one that has imported PyTorch already."""
    port, make = free_port(), context().Process
    pair = [make(target=as_rank, args=(rank, port, said, work, *arguments)) for rank in (0, 1)]
    for process in pair:
        process.start()
    return pair


def train_tiny(data: Path, out: Path, steps: int, workers: int = 0) -> None:
    values = {"data.root": str(data), "steps": str(steps), "epochs": "1000", "log_every": "1"}
    values |= {"model.n_queries": "8", "model.top_k": "8", "eval_every": "0", "device": "cpu"}
    values |= {"data.workers": str(workers), "batch_size": "2"}
    resolved = resolve(load_preset("dino-micro"), arguments=[Layer(ARGUMENT, values)])
    with Path(os.devnull).open("w") as nowhere:
        train_run(resolved, out, Console(file=nowhere), resume=True, command=["test"])


def evaluate_tiny(run: Path, out: Path) -> None:
    evaluate_run(run, None, "train2017", "best", "cpu", out, {"eval_batch_size": "5"})


def evaluate_where_one_compares(run: Path, out: Path) -> None:
    if os.environ["RANK"] == "1":
        evaluate.coco_metrics = of_run.confusion_matrix = None  # type: ignore[assignment]
    evaluate_tiny(run, out)


@pytest.mark.slow
def test_two_processes_evaluate_like_one(toy: Path, tmp_path: Path):
    """12 images in batches of 5, 5 and 2: the same detections in the same order. The first process
    alone compares them with the annotations.
    """
    run = tmp_path / "run"
    train_tiny(toy, run, 2)
    evaluate_tiny(run, tmp_path / "one")
    pair = start_pair(evaluate_where_one_compares, run, tmp_path / "two")
    for process in pair:
        process.join(120)
    assert [process.exitcode for process in pair] == [0, 0]
    for name in ("json", "metrics.json", "curves.json", "confusion.json"):
        one, two = (
            (tmp_path / where / f"train2017.{name}").read_text() for where in ("one", "two")
        )
        assert one == two, name


@pytest.mark.slow
@pytest.mark.faults
def test_a_signal_to_one_process_stops_both_with_a_state(toy: Path, tmp_path: Path, tally: Tally):
    run = tmp_path / "run"
    pair = start_pair(train_tiny, toy, run, 3000)
    while not (run / "metrics.jsonl").exists():
        assert all(process.is_alive() for process in pair)
        time.sleep(0.1)
    pair[1].terminate()
    for process in pair:
        process.join(120)
    assert [process.exitcode for process in pair] == [143, 143]
    state = StateFolder(run / "checkpoints").load()[0]
    records = [record["step"] for record in read_metrics(run / "metrics.jsonl")]
    assert state["position"]["step"] == records[-1]
    assert state["processes"] == 2
    tally.add("SIGTERM to one of two processes", SAVED)


def ends(pair: list[Any], said: Path) -> list[tuple[int, str]]:
    """Exit codes and last words."""
    for process in pair:
        process.join(150)
    words = [said / str(rank) for rank in (0, 1)]
    return [
        (process.exitcode, path.read_text() if path.exists() else "")
        for process, path in zip(pair, words, strict=True)
    ]


def until_steps(run: Path, n_steps: int, pair: list[Any]) -> None:
    end = time.monotonic() + 150
    path = run / "metrics.jsonl"
    while not path.exists() or path.read_bytes().count(b"\n") < n_steps:
        assert all(process.is_alive() for process in pair)
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_is_named_and_the_other_saves(
    toy: Path, tmp_path: Path, tally: Tally, lost: int
):
    run = tmp_path / "run"
    pair = start_pair(train_tiny, toy, run, 3000, said=tmp_path)
    until_steps(run, 2, pair)
    pair[lost].kill()
    code, words = ends(pair, tmp_path)[1 - lost]
    assert code == 1
    assert "another process of this run ended" in words
    step = StateFolder(run / "checkpoints").load()[0]["position"]["step"]
    assert step >= 1
    assert f"state after step {step} is saved; to go on: student-train train --resume" in words
    # and it goes on, by itself
    train_tiny(toy, run, step + 1)
    assert StateFolder(run / "checkpoints").load()[0]["position"]["step"] == step + 1
    tally.add("SIGKILL of one of two processes", SAVED)


@pytest.mark.slow
@pytest.mark.faults
def test_a_killed_loader_of_one_process_stops_both_with_a_state(
    toy: Path, tmp_path: Path, tally: Tally
):
    run = tmp_path / "run"
    pair = start_pair(train_tiny, toy, run, 3000, 1, said=tmp_path)
    until_steps(run, 1, pair)
    (loader,) = Path(f"/proc/{pair[1].pid}/task/{pair[1].pid}/children").read_text().split()
    os.kill(int(loader), signal.SIGKILL)
    found = ends(pair, tmp_path)
    assert [code for code, _ in found] == [1, 1]
    assert found[0] == found[1]
    assert all(each in found[0][1] for each in ("memory", "data.workers", "saved", "--resume"))
    assert StateFolder(run / "checkpoints").load()[0]["processes"] == 2
    tally.add("SIGKILL of a loader of one of two processes", SAVED)


@pytest.mark.slow
@pytest.mark.faults
def test_a_signal_to_one_process_ends_the_wait_of_the_other(
    toy: Path, tmp_path: Path, tally: Tally
):
    """An image of the first process never comes: it hears nothing of a signal to the second, which
    has its data and waits for the first.
    """
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(toy, data)
    index = Order(12, 1, True, load_preset("dino-micro").seed, world=2).batches()[2][0].index
    dead = data / "train2017" / f"{index + 1:03d}.png"
    dead.unlink()
    os.mkfifo(dead)
    pair = start_pair(train_tiny, data, run, 3000, said=tmp_path)
    until_steps(run, 2, pair)
    os.kill(pair[1].pid, signal.SIGTERM)
    found = ends(pair, tmp_path)
    assert [code for code, _ in found] == [143, 143]
    assert "stopped after step 2" in found[0][1]
    assert StateFolder(run / "checkpoints").load()[0]["position"]["step"] == 2
    tally.add("SIGTERM to one of two processes", SAVED)


def ask_the_first(folder: Path) -> None:
    world = join_world("cpu")
    rank = str(world.rank)
    with world.together():
        try:
            made = world.on_first(lambda: f"made by {rank}")
            world.on_first(lambda: refuse(rank))
        except ConfigError as error:
            (folder / rank).write_text(f"{made}; {error}; {world.collect([rank])}")


def refuse(rank: str) -> str:
    # its constructor takes a list of sentences and makes one of them
    raise ConfigError([f"refused by {rank}"])


@pytest.mark.slow
def test_what_the_first_process_makes_or_refuses_holds_for_all(tmp_path: Path):
    for process in start_pair(ask_the_first, tmp_path):
        process.join(120)
    said = [(tmp_path / rank).read_text() for rank in ("0", "1")]
    assert said == ["made by 0; refused by 0; ['0', '1']", "made by 0; refused by 0; []"]


def test_one_process_needs_no_group():
    world = World()
    values = torch.tensor([1.0, 2.0])
    assert torch.equal(world.max(values), values)
    assert world.gather([1, 2]) == world.collect([1, 2]) == [1, 2]
    assert world.on_first(lambda: 3) == 3
    assert world.is_first
    world.barrier()
    world.agree(None)
    with pytest.raises(RunError, match="mine"):
        world.agree(RunError("mine"))
    with pytest.raises(ZeroDivisionError), world.together():
        raise ZeroDivisionError


def test_a_group_that_cannot_form_says_how_to_start_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RunError, match="torchrun"):
        join_world("cpu")
