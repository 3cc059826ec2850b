"""Weights as training scripts leave them: wrapped, prefixed, beside paths, tables and code."""

import argparse
from collections import defaultdict
from datetime import datetime
from fractions import Fraction
from pathlib import Path, PosixPath
from typing import Any

import pytest
import torch

from student_train.errors import CheckpointError
from student_train.models.official import export_official, load_official, read_checkpoint, translate
from student_train.models.weights_file import read_weights_file

NAMES = {f"layers.{at}.weight": torch.full((2, 2), float(at)) for at in range(3)}


@pytest.mark.parametrize(
    "content",
    [
        {"epoch": 3, "model_state_dict": NAMES},
        {"model": {}, "model_ema": NAMES},
        {"ema": {"module": NAMES, "updates": torch.tensor(7)}, "model": {"other.weight": NAMES}},
        {"ema": {"decay": 0.9, "updates": torch.tensor(7)}, "model": NAMES},
        {"state_dict": {"ema": {"module": NAMES}}},
        {"ema": {"module": {f"module.{name}": value for name, value in NAMES.items()}}},
        {"model": {f"_orig_mod.{name}": value for name, value in NAMES.items()}},
        {"weights": {f"module._orig_mod.{name}": value for name, value in NAMES.items()}},
    ],
)
def test_weights_are_found_where_scripts_keep_them(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    assert read_checkpoint(tmp_path / "w.pth").keys() == NAMES.keys()


def test_paths_are_text_and_tables_with_factories_empty_shells(tmp_path: Path) -> None:
    arguments = argparse.Namespace(out=PosixPath("runs") / "a", root=PosixPath("/data"), lr=0.1)
    log = defaultdict(list, {"loss": [1.0]})
    torch.save({"model": NAMES, "args": arguments, "log": log}, tmp_path / "w.pth")
    file = read_weights_file(tmp_path / "w.pth")
    assert file.weights.keys() == NAMES.keys()
    assert file.settings == {"out": "runs/a", "root": "/data", "lr": 0.1}


@pytest.mark.parametrize("zipped", [True, False])
def test_every_refused_class_is_named(tmp_path: Path, zipped: bool) -> None:
    content = {"model": NAMES, "when": datetime(2026, 1, 1), "count": Fraction(1, 2)}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"holds objects of datetime\.datetime") as refused:
        read_weights_file(tmp_path / "w.pth")
    said = str(refused.value)
    assert "torch.save(model.state_dict(), FILE)" in said
    assert "fractions.Fraction" in said or not zipped
    assert "\x1b" not in said
    assert "weights_only" not in said


@pytest.mark.parametrize("prefix", ["model.", "ema.module.", "detector.net."])
def test_names_behind_a_wrappers_are_read(tiny: Any, prefix: str) -> None:
    student = tiny()
    state = export_official(student)
    wrapped = {f"{prefix}{name}": value for name, value in state.items()}
    others = {"criterion.empty_weight": torch.ones(3), "model_ema.step": torch.tensor(1)}
    translation = translate(wrapped | others)
    assert translation.state.keys() == state.keys()
    assert translation.origin["label_enc.weight"] == f"{prefix}label_enc.weight"
    assert load_official(tiny(), translation.state).complete


def test_of_weights_and_their_average_the_average_is_read(tiny: Any) -> None:
    state = export_official(tiny())
    both = {f"model.{name}": value for name, value in state.items()}
    both |= {f"ema.module.{name}": value + 1 for name, value in state.items()}
    assert torch.equal(translate(both).state["label_enc.weight"], state["label_enc.weight"] + 1)
