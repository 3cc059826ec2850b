"""Saved states survive kills, damage and full disks."""

import json
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from student_train.errors import CheckpointError
from student_train.runs import states
from student_train.runs.states import StateFolder, is_state, read_state


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "checkpoints")


def save(folder: StateFolder, step: int) -> Path:
    return folder.save(step, {"step": step, "tensor": torch.full((1000,), float(step))})


def names(folder: StateFolder) -> list[str]:
    return sorted(path.name for path in folder.root.iterdir())


def test_a_state_comes_back(folder: StateFolder):
    assert not folder.exists()
    path = save(folder, 3)
    state, note = folder.load()
    assert (state["step"], note) == (3, "")
    assert torch.equal(state["tensor"], torch.full((1000,), 3.0))
    assert folder.newest() == path
    assert read_state(path)["step"] == 3


def test_the_last_few_stay(tmp_path: Path):
    folder = StateFolder(tmp_path, keep=3)
    for step in (2, 4, 6, 8):
        save(folder, step)
    assert [entry.step for entry in folder.entries()] == [8, 6, 4]
    assert len(names(folder)) == 4
    # fewer are kept from now on
    save(StateFolder(tmp_path, keep=1), 10)
    assert [entry.step for entry in folder.entries()] == [10]
    assert len(names(folder)) == 2


def test_a_step_that_is_saved_again_takes_no_second_place(folder: StateFolder):
    save(folder, 2)
    save(folder, 4)
    folder.save(4, {"step": 4, "evaluated": True})
    assert [entry.step for entry in folder.entries()] == [4, 2]
    assert folder.load()[0]["evaluated"]


@pytest.mark.parametrize("damage", ["truncated", "empty", "one bit", "foreign", "gone"])
def test_a_damaged_state_gives_way_to_the_one_before(folder: StateFolder, damage: str):
    save(folder, 1)
    last = save(folder, 2)
    data = bytearray(last.read_bytes())
    if damage == "foreign":
        torch.save({"model": {}}, last)
    elif damage == "gone":
        last.unlink()
    else:
        data[len(data) // 2] ^= 1
        cut = {"truncated": data[: len(data) // 2], "empty": b"", "one bit": data}
        last.write_bytes(cut[damage])
    state, note = folder.load()
    assert state["step"] == 1
    assert last.name in note
    assert "going back to the state before it" in note


def test_without_any_readable_state_the_files_are_named(folder: StateFolder):
    with pytest.raises(CheckpointError, match="no saved state in"):
        folder.load()
    path = save(folder, 1)
    path.write_bytes(b"x")
    with pytest.raises(CheckpointError, match=rf"no readable state .*{path.name} is damaged"):
        folder.load()


def test_without_the_list_the_names_tell(folder: StateFolder):
    save(folder, 1)
    last = save(folder, 2)
    (folder.root / "states.json").write_text("{")
    assert folder.load()[0]["step"] == 2
    (folder.root / "states.json").unlink()
    last.write_bytes(b"x" * 100)
    assert folder.load()[0]["step"] == 1


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("moment", ["torch.save", "move_into_place", "replacing"])
def test_a_kill_at_any_moment_leaves_a_whole_state(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch, moment: str
):
    save(folder, 1)

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if moment == "torch.save":
            patch.setattr(torch, "save", killed)
        else:
            patch.setattr(states, moment, killed)
        with pytest.raises(Killed):
            save(folder, 2)
    # what a killed writer cannot clean up
    (folder.root / ".step-00000002.pt.1-ab.tmp").write_bytes(b"half")
    assert folder.load()[0]["step"] == 1
    save(folder, 3)
    assert [entry.step for entry in folder.entries()] == [3, 1]
    assert len(names(folder)) == 3


def no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("moment", ["while writing", "at the end", "in the list"])
def test_a_full_disk_keeps_the_former_states(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch, moment: str
):
    save(folder, 1)
    before = names(folder)
    with monkeypatch.context() as patch:
        if moment == "while writing":
            patch.setattr(states, "_Hashed", FullAfter)
        elif moment == "at the end":
            patch.setattr("box_store.places.files.os.fsync", no_space)
        else:
            patch.setattr(StateFolder, "_list", no_space)
        with pytest.raises(
            CheckpointError, match=r"state of step 2 in .*: No space left on device"
        ):
            save(folder, 2)
    assert names(folder) == before
    assert folder.load()[0]["step"] == 1
    save(folder, 2)
    assert folder.load()[0]["step"] == 2


class FullAfter(states._Hashed):
    """A disk that takes 1000 bytes."""

    room = 1000

    def write(self, data: bytes) -> int:
        self.room -= len(data)
        if self.room < 0:
            no_space()
        return super().write(data)


def test_a_disk_that_loses_bytes_is_noticed(folder: StateFolder, monkeypatch: pytest.MonkeyPatch):
    class Lossy(states._Hashed):
        def __init__(self, file: BinaryIO) -> None:
            super().__init__(file)
            self.digest.update(b"what the disk lost")

    save(folder, 1)
    monkeypatch.setattr(states, "_Hashed", Lossy)
    with pytest.raises(CheckpointError, match="read back differs"):
        save(folder, 2)
    assert folder.load()[0]["step"] == 1


def test_a_state_cannot_run_code(tmp_path: Path):
    class Evil:
        def __reduce__(self) -> Any:
            return (print, ("run",))

    path = tmp_path / "state.pt"
    torch.save({"format": states.FORMAT, "x": Evil()}, path)
    with pytest.raises(CheckpointError, match="damaged"):
        read_state(path)
    assert not is_state(path)


def test_the_list_is_for_people_too(folder: StateFolder):
    path = save(folder, 7)
    row = json.loads((folder.root / "states.json").read_text())["states"][0]
    assert (row["step"], row["file"], row["bytes"]) == (7, path.name, path.stat().st_size)
    assert len(row["sha256"]) == 64
    folder.clear()
    assert names(folder) == []
