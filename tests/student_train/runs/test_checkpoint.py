"""Weights files are self-contained, and written whole."""

from pathlib import Path

import pytest
import torch
from torch import nn

from student_train.errors import CheckpointError
from student_train.runs.checkpoint import load_matching, load_weights, save_weights


def test_weights_carry_their_description(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    shared = torch.ones(2, 3)
    save_weights(path, {"a": shared, "b": shared, "c": shared.T}, {"classes": ["é"]})
    tensors, about = load_weights(path)
    assert about == {"classes": ["é"]}
    assert torch.equal(tensors["b"], shared)
    assert tensors["c"].shape == (3, 2)


def test_a_full_disk_keeps_the_former_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.ones(2)}, {})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("box_store.places.files.os.fsync", full)
    with pytest.raises(CheckpointError, match=r"cannot write .*: No space left on device"):
        save_weights(path, {"a": torch.zeros(2)}, {})
    assert torch.equal(load_weights(path)[0]["a"], torch.ones(2))
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]


def test_foreign_weights_are_refused_by_name(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match=r"w\.safetensors is not a readable safetensors"):
        load_weights(path)
    with pytest.raises(CheckpointError, match="no weights at"):
        load_weights(tmp_path / "none.safetensors")


def test_fine_tuning_takes_what_fits_and_says_what_does_not():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 5))
    tensors = {
        "0.weight": torch.full((2, 2), 7.0),
        "1.weight": torch.zeros(9, 2),
        "extra": torch.zeros(1),
    }
    report = load_matching(model, tensors)
    assert report.loaded == 1
    assert report.missing == ("0.bias", "1.bias")
    assert report.unused == ("extra",)
    assert report.other_shape == ("1.weight",)
    assert torch.equal(model[0].weight, torch.full((2, 2), 7.0))
    assert "1 of another shape or other classes (1.weight)" in report.describe()
    with pytest.raises(CheckpointError, match="none of the tensors fits"):
        load_matching(model, {"other": torch.zeros(1)})
