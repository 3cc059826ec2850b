"""Runs of a tiny DINO, started, stopped and looked at."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from student_train.config import resolve
from student_train.presets import load_preset
from student_train.runs.states import StateFolder
from student_train.settings.origin import ARGUMENT
from student_train.settings.overrides import Layer
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
