"""What a run says while it goes."""

import io

import pytest
from rich.console import Console

from box_store.patience import duration
from teacher_infer.run import progress
from teacher_infer.run.progress import LiveReporter, Pace, PlainReporter, make_reporter


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03"), (-1, "0:00")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_pace_counts_from_the_first_image_on():
    now = [100.0]
    pace = Pace(n_images=100, n_before=40, clock=lambda: now[0])
    assert pace.images_per_s is None
    now[0] = 160.0  # a minute of loading
    pace.state = "labelling"
    pace.begin()
    pace.n_new = 20
    now[0] = 170.0
    assert pace.images_per_s == pytest.approx(2)
    assert pace.eta_s == pytest.approx(20)
    assert pace.text() == "2 images/s, 0:20 to go"
    pace.n_bad = 3
    pace.state = "done"
    assert pace.text() == "done, 3 bad"


def test_plain_lines_come_with_changes_and_now_and_then(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    console = Console(file=io.StringIO(), width=100)
    with PlainReporter(console) as reporter:
        reporter.teacher("tiny", 100, 0)
        now[0] = 20.0
        reporter.state("tiny", "labelling")
        for _ in range(10):
            now[0] += 2.0
            reporter.advance("tiny", 5, 1)
        reporter.state("tiny", "done")
    said = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert said == [
        "tiny: 0/100 images, labelling",
        "tiny: 30/100 images, 2.5 images/s, 0:28 to go, 6 bad",
        "tiny: 50/100 images, done, 10 bad",
    ]


def test_a_terminal_gets_bars_and_a_pipe_gets_lines():
    terminal = Console(file=io.StringIO(), force_terminal=True, width=120)
    reporter = make_reporter(terminal)
    assert isinstance(reporter, LiveReporter)
    with reporter:
        reporter.teacher("tiny", 10, 4)
        reporter.state("tiny", "labelling")
        reporter.advance("tiny", 6, 1)
        reporter.note("a worker died [really]")
        reporter.state("tiny", "done")
    said = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert "10/10" in said
    assert "done, 1 bad" in said
    assert "a worker died [really]" in said
    assert isinstance(make_reporter(Console(file=io.StringIO())), PlainReporter)
