"""States survive kills and damage; weights files are self-contained."""

from pathlib import Path

import pytest
import torch
from torch import nn

from student_train import checkpoint
from student_train.checkpoint import (
    is_state,
    load_matching,
    load_state,
    load_weights,
    save_state,
    save_weights,
)
from student_train.errors import CheckpointError


def test_a_state_comes_back(tmp_path: Path):
    save_state(tmp_path, {"step": 3, "tensor": torch.arange(4)})
    state, note = load_state(tmp_path)
    assert state["step"] == 3
    assert torch.equal(state["tensor"], torch.arange(4))
    assert note == ""


@pytest.mark.parametrize("damage", ["truncated", "empty", "foreign", "text"])
def test_a_damaged_last_state_gives_way_to_the_one_before(tmp_path: Path, damage: str):
    save_state(tmp_path, {"step": 1, "tensor": torch.ones(1000)})
    save_state(tmp_path, {"step": 2, "tensor": torch.ones(1000)})
    last = tmp_path / "last.pt"
    data = last.read_bytes()
    content = {"truncated": data[: len(data) // 2], "empty": b"", "text": b"hello" * 50}
    if damage == "foreign":
        torch.save({"model": {}}, last)
    else:
        last.write_bytes(content[damage])
    state, note = load_state(tmp_path)
    assert state["step"] == 1
    assert "last.pt" in note
    assert "going back" in note


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path):
    save_state(tmp_path, {"step": 1})
    (tmp_path / "last.pt").rename(tmp_path / "previous.pt")
    (tmp_path / "last.pt.partial").write_bytes(b"half")
    assert load_state(tmp_path)[0]["step"] == 1


def test_without_any_readable_state_the_files_are_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"no saved state in .*expected last\.pt"):
        load_state(tmp_path)
    (tmp_path / "last.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"no readable state .*last\.pt is damaged"):
        load_state(tmp_path)


def test_a_full_disk_keeps_the_former_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_state(tmp_path, {"step": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_state(tmp_path, {"step": 2})
    assert load_state(tmp_path)[0]["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_state_cannot_run_code(tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"format": checkpoint.STATE_FORMAT, "x": Evil()}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="damaged"):
        load_state(tmp_path)
    assert not is_state(tmp_path / "last.pt")


def test_weights_carry_their_description(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    shared = torch.ones(2, 3)
    save_weights(path, {"a": shared, "b": shared, "c": shared.T}, {"classes": ["é"]})
    tensors, about = load_weights(path)
    assert about == {"classes": ["é"]}
    assert torch.equal(tensors["b"], shared)
    assert tensors["c"].shape == (3, 2)


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
    assert "1 of another shape (1.weight)" in report.describe()
    with pytest.raises(CheckpointError, match="none of the tensors fits"):
        load_matching(model, {"other": torch.zeros(1)})
