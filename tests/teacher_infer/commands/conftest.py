"""`teacher-infer` as people type it, in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest

from box_store.store.reader import read_images
from box_store.store.store import BoxStore
from teacher_infer.cli import main

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capsys) -> Cli:
    """cli(*arguments) -> exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        code = caught.value.code
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return (0 if code is None else int(code)), out, err

    return run


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def request_of(store: Path, teacher: str):
    """request_of(data, keys="") -> the arguments of `plan` and `run` for the tiny teacher."""

    def make(data: Path, keys: str = "", name: str = "tiny") -> list[str]:
        return [
            *("--data", str(data), "--split", "train", "--store", str(store)),
            *("--teacher", f"{name}={teacher},score_floor=0,threads=1{keys}"),
        ]

    return make


def statuses(store: Path, teacher: str = "tiny") -> dict[int, str]:
    rows = read_images(BoxStore.open(store), teacher).to_pylist()
    found = {row["image_id"]: row["status"] for row in rows}
    assert len(found) == len(rows)
    return found
