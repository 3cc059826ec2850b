"""A run that is killed again and again ends exactly like the one that was not.

The processes are real and die by SIGKILL at random moments: while they start, step, evaluate or
save. They are forked from one that has imported PyTorch already. TEACH_DETR_LONG=1 kills one run
twenty times.
"""

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from student_train.runs.checkpoint import load_weights
from student_train.runs.metrics import read_metrics
from student_train.runs.states import StateFolder
from tests.forked import context
from tests.tally import Tally

LONG = bool(os.environ.get("TEACH_DETR_LONG"))
N_KILLS, N_STEPS = (20, 96) if LONG else (4, 24)
SETTINGS = {
    "model.n_queries": "8",
    "model.top_k": "8",
    "epochs": "100",
    "steps": str(N_STEPS),
    "save_every": "5",
    # neither a multiple nor a divisor of the above: intervals are cut by kills
    "log_every": "3",
    "eval_every": "2",
    "optim.ema": "0.9",
    "optim.accumulate": "2",
    "data.workers": "0",
    "threads": "1",
}
CLOCKS = ("images_per_second", "seconds_left", "data_wait", "memory_gib")


def work(data: Path, store: Path, out: Path) -> None:
    """One process: start, or go on."""
    from rich.console import Console

    from student_train.config import resolve
    from student_train.presets import load_preset
    from student_train.settings.origin import ARGUMENT
    from student_train.settings.overrides import Layer
    from student_train.training.launch import train

    torch.set_num_threads(1)
    values = SETTINGS | {"data.root": str(data), "teachers.store": str(store)}
    resolved = resolve(load_preset("dino-micro"), arguments=[Layer(ARGUMENT, values)])
    with Path(os.devnull).open("w") as nowhere:
        train(resolved, out, Console(file=nowhere), resume=True, command=["test"])


def start(target: Any, *arguments: Any) -> Any:
    process = context().Process(target=target, args=arguments)
    process.start()
    return process


def steps_done(out: Path) -> int:
    entries = StateFolder(out / "checkpoints").entries()
    return entries[0].step if entries else 0


def n_records(out: Path) -> int:
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def run_with_kills(data: Path, store: Path, out: Path, n_kills: int, longest: float) -> list[int]:
    """Kill up to `n_kills` times; the steps saved by then.

    By turns a moment after something was recorded, so that the run goes on whatever the machine's
    speed, and anywhere in the first `longest` seconds of a process.
    """
    generator = random.Random(0)
    seen = []
    while len(seen) < n_kills:
        process = start(work, data, store, out)
        wanted = n_records(out) + 1
        if len(seen) % 2 == 0:
            while process.exitcode is None and n_records(out) < wanted:
                process.join(0.01)
        process.join(generator.uniform(0, longest if len(seen) % 2 else 0.05))
        if process.exitcode is not None:
            assert process.exitcode == 0, "a run ended by itself, and badly"
            break
        process.kill()
        process.join()
        seen.append(steps_done(out))
    last = start(work, data, store, out)
    last.join()
    assert last.exitcode == 0
    return seen


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, average, optimiser, best weights and records, to the last bit."""
    states = [StateFolder(run / "checkpoints").load()[0] for run in (one, other)]
    for state in states:
        # where the annotations and the store lie
        state.pop("config")
    assert flat(states[0]) == flat(states[1])
    best = [load_weights(run / "checkpoints/best.safetensors")[0] for run in (one, other)]
    assert flat(best[0]) == flat(best[1])
    records = [
        [{k: v for k, v in record.items() if k not in CLOCKS} for record in read_metrics(path)]
        for path in (one / "metrics.jsonl", other / "metrics.jsonl")
    ]
    assert records[0] == records[1]
    steps = [record["step"] for record in records[0] if record["kind"] == "train"]
    assert steps == list(range(3, N_STEPS + 1, 3))


def flat(value: Any) -> Any:
    """Tensors as bytes: equal means equal to the last bit."""
    if isinstance(value, torch.Tensor):
        return (value.dtype, tuple(value.shape), value.contiguous().numpy().tobytes())
    if isinstance(value, dict):
        return {name: flat(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [flat(item) for item in value]
    return value


@pytest.mark.slow
@pytest.mark.faults
def test_killed_again_and_again_it_ends_bit_identical(
    toy: Path, store: Path, tmp_path: Path, tally: Tally
):
    started = time.monotonic()
    whole = start(work, toy, store, tmp_path / "whole")
    whole.join()
    assert whole.exitcode == 0
    longest = (time.monotonic() - started) / 8
    seen = run_with_kills(toy, store, tmp_path / "killed", N_KILLS, longest)
    assert len(seen) >= (N_KILLS if LONG else 2)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    tally.add("SIGKILL of a training", "run equal, bit by bit", len(seen))
