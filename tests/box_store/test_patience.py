"""Long work speaks at once, and again when ten seconds are over."""

import time

import pytest

from box_store import patience as module
from box_store.patience import Patience, if_it_takes, patience
from box_store.wording import counted, some_of


def test_a_line_at_the_start_and_every_ten_seconds() -> None:
    now, said = 0.0, list[str]()
    work = Patience(said.append, "evaluating", 100, "images", clock=lambda: now)
    assert said == ["evaluating (100 images)"]
    for _ in range(10):
        now += 2.0
        work.advance(5)
    # 25 images in 10 seconds: 75 are 30 seconds
    assert said[1:] == [
        "evaluating: 25 of 100 images, 0:30 left",
        "evaluating: 50 of 100 images, 0:20 left",
    ]
    now += 60
    work.advance(50)
    assert len(said) == 3, "the end needs no line"


def test_without_a_total_the_time_so_far() -> None:
    now, said = 0.0, list[str]()
    work = Patience(said.append, "tracing", clock=lambda: now)
    now = 75.0
    work.remind()
    assert said == ["tracing", "tracing: 1:15 so far"]


def test_a_block_is_reminded_of_by_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.02)
    said: list[str] = []
    with patience(said.append, "writing m.onnx"):
        deadline = time.monotonic() + 10
        while len(said) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert said[0] == "writing m.onnx"
    assert set(said[1:]) == {"writing m.onnx: 0:00 so far"}
    count = len(said)
    time.sleep(0.1)
    assert len(said) == count, "it ends with the block"


def test_what_is_over_in_no_time_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with if_it_takes("reading boxes", after_s=5.0):
        pass
    assert capfd.readouterr() == ("", "")
    with if_it_takes("reading boxes", after_s=0.02):
        time.sleep(0.2)
    assert capfd.readouterr() == ("", "reading boxes\n")


def test_words_agree_with_their_number() -> None:
    assert [counted(n, "teacher") for n in (0, 1, 2)] == ["0 teachers", "1 teacher", "2 teachers"]
    assert counted(2, "box", "boxes") == "2 boxes"
    assert some_of(["kangaroo"]) == "kangaroo"
    assert some_of(list("abcdef")) == "a, b, c, d, e, ..."
