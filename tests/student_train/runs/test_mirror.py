"""The working copy of a run at a URL, and what stands there after every kind of accident."""

import json
from pathlib import Path
from typing import Any

import pytest

from box_store.places.locations import RemoteError, RemotePath, location
from student_train.runs.mirror import Mirror
from student_train.runs.states import LIST, SavedStates, StateFolder


@pytest.fixture
def url(server: Any, request: Any) -> RemotePath:
    found = location(server.url(f"bucket/{request.node.name}"))
    assert isinstance(found, RemotePath)
    return found


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Other machines, by name: each has a cache of its own."""

    def move(name: str) -> None:
        monkeypatch.setenv("TEACH_DETR_CACHE", str(tmp_path / name))

    return move


def opened(url: RemotePath, fresh: bool = False) -> Mirror:
    mirror = Mirror(url)
    mirror.open(fresh)
    return mirror


def save(mirror: Mirror, step: int, keep: int = 2) -> None:
    StateFolder(mirror.local / "checkpoints", keep).save(step, {"step": step})
    (mirror.local / "metrics.jsonl").write_text(f"{step}\n" * step)


def steps_at(url: RemotePath) -> list[int]:
    """Steps that can be resumed from, by what is read there."""
    listed = json.loads((url / "checkpoints" / LIST).read_bytes())["states"]
    for row in listed:
        assert (url / "checkpoints" / row["file"]).size() == row["bytes"]
    return [row["step"] for row in listed]


def states_at(url: RemotePath) -> int:
    return len(list((url / "checkpoints").glob("step-*.pt")))


def break_uploads(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """The network goes after so many objects."""
    upload, done = RemotePath.upload, []

    def fails(self: RemotePath, file: Any) -> None:
        if len(done) == after:
            raise RemoteError(5, f"cannot write {self}")
        done.append(self)
        upload(self, file)

    monkeypatch.setattr(RemotePath, "upload", fails)


def test_a_run_goes_on_elsewhere(url: RemotePath, elsewhere: Any) -> None:
    mirror = opened(url)
    (mirror.local / "config.json").write_text("{}")
    (mirror.local / "results").mkdir()
    (mirror.local / "results" / "val.json").write_text("[]")
    for step in (2, 4, 6):
        save(mirror, step)
        mirror.push()
    assert steps_at(url) == [6, 4]
    assert states_at(url) == 2
    elsewhere("another machine")
    copy = opened(url).local
    assert SavedStates(copy / "checkpoints").load()[0]["step"] == 6
    assert (copy / "metrics.jsonl").read_text() == "6\n" * 6
    assert (copy / "config.json").read_text() == "{}"
    assert (url / "results" / "val.json").exists()


def test_what_did_not_change_is_not_sent_again(
    url: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = opened(url)
    save(mirror, 2)
    mirror.push()
    before = {path.name: path.read_bytes() for path in url.iterdir() if path.is_file()}
    sent: list[RemotePath] = []
    upload = RemotePath.upload

    def counted(self: RemotePath, file: Any) -> None:
        sent.append(self)
        upload(self, file)

    monkeypatch.setattr(RemotePath, "upload", counted)
    mirror.push()
    # nor after it was opened anew
    opened(url).push()
    assert sent == []
    assert {path.name: path.read_bytes() for path in url.iterdir() if path.is_file()} == before
    save(mirror, 4)
    mirror.push()
    assert sent, "what did change is"


@pytest.mark.parametrize("after", range(4))
def test_a_push_cut_short_leaves_what_can_be_resumed(
    url: RemotePath, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    mirror = opened(url)
    for step in (2, 4):
        save(mirror, step)
    mirror.push()
    for step in (6, 8):
        save(mirror, step)
    # of the records, two states and their list
    with monkeypatch.context() as patch:
        break_uploads(patch, after)
        with pytest.raises(RemoteError, match="cannot write"):
            mirror.push()
    assert steps_at(url) == [4, 2]
    assert mirror.step_at_url() == 4
    mirror.push()
    assert steps_at(url) == [8, 6]
    assert states_at(url) == 2


def test_a_copy_that_is_ahead_goes_on_and_is_pushed(
    url: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = opened(url)
    save(mirror, 2)
    mirror.push()
    save(mirror, 4)
    opened(url)
    assert steps_at(url) == [4, 2]
    save(mirror, 6)
    # killed when the list is there, and the copy's mark does not know
    with monkeypatch.context() as patch:
        patch.setattr(Mirror, "_remove_gone", interrupted)
        with pytest.raises(KeyboardInterrupt):
            opened(url)
    again = opened(url)
    assert SavedStates(again.local / "checkpoints").load()[0]["step"] == 6
    save(again, 8)
    opened(url)
    assert steps_at(url) == [8, 6]
    assert states_at(url) == 2


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_copy_that_was_left_behind_is_fetched_anew(url: RemotePath, elsewhere: Any) -> None:
    elsewhere("one")
    one = opened(url)
    save(one, 2)
    one.push()
    # never pushed, and overtaken
    save(one, 9)
    elsewhere("other")
    other = opened(url)
    save(other, 4)
    other.push()
    elsewhere("one")
    one = opened(url)
    assert SavedStates(one.local / "checkpoints").load()[0]["step"] == 4
    assert (one.local / "metrics.jsonl").read_text() == "4\n" * 4


def test_other_machines_get_what_the_first_has(url: RemotePath, elsewhere: Any) -> None:
    elsewhere("first")
    first = opened(url)
    save(first, 2)
    first.push()
    elsewhere("second")
    second = Mirror(url)
    second.follow(fresh=False)
    # it was ahead in a former life: that does not count now
    save(second, 8)
    second.follow(fresh=False)
    assert SavedStates(second.local / "checkpoints").load()[0]["step"] == 2


def test_a_run_that_begins_anew_leaves_nothing_of_the_former_one(
    url: RemotePath, elsewhere: Any
) -> None:
    elsewhere("one")
    former = opened(url)
    save(former, 2)
    (former.local / "config.json").write_text("1")
    (former.local / "checkpoints" / "best.safetensors").write_text("1")
    former.push()
    elsewhere("other")
    anew = opened(url, fresh=True)
    (anew.local / "config.json").write_text("2")
    anew.push()
    assert (url / "config.json").read_bytes() == b"2"
    assert list((url / "checkpoints").iterdir()) == []
    assert not (url / "metrics.jsonl").exists()
    save(anew, 3)
    anew.push()
    assert steps_at(url) == [3]
    elsewhere("one")
    assert SavedStates(opened(url).local / "checkpoints").load()[0]["step"] == 3


def test_states_that_come_faster_than_they_are_sent(
    url: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = opened(url)
    save(mirror, 2, keep=1)
    upload = RemotePath.upload

    def trains_on(self: RemotePath, file: Any) -> None:
        upload(self, file)
        if self.name == "metrics.jsonl" and mirror_step() < 6:
            save(mirror, mirror_step() + 2, keep=1)

    def mirror_step() -> int:
        return SavedStates(mirror.local / "checkpoints").entries()[0].step

    monkeypatch.setattr(RemotePath, "upload", trains_on)
    mirror.push()
    assert steps_at(url) == [6]
    # records are never older than the state beside them
    assert (url / "metrics.jsonl").read_bytes() == b"6\n" * 6
    assert states_at(url) == 1
