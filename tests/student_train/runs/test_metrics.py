"""Running means, `metrics.jsonl`, and the progress line."""

import io
import json
import math
from pathlib import Path

import pytest
import torch
from rich.console import Console

from box_store.patience import duration
from student_train.runs.metrics import Clock, MetricsLog, RunningMeans, read_metrics
from student_train.training.progress import ProgressLine, Status


def test_a_part_that_is_absent_counts_as_zero():
    means = RunningMeans()
    means.add(("a", "b"), torch.tensor([1.0, 2.0]))
    means.add(("a",), torch.tensor([3.0]))
    assert means.take() == {"a": 2.0, "b": 1.0}
    assert means.take() == {}


def test_records_are_lines_of_json_without_nan(tmp_path: Path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write("train", {"step": 1, "loss": {"total": math.nan}, "parts": [math.inf, 1.0]})
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line) == {
        "kind": "train",
        "step": 1,
        "loss": {"total": None},
        "parts": [None, 1.0],
    }


def test_duckdb_reads_the_records(tmp_path: Path):
    duckdb = pytest.importorskip("duckdb")
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write("train", {"step": 1, "loss": {"total": 2.5}, "lr": {"head": 1e-4}, "data_wait": 0.1})
    log.write("eval", {"step": 1, "AP": 0.4, "per_class": [{"name": "cat", "AP": None}]})
    query = (
        f"SELECT step, loss.total, \"lr\".head, data_wait FROM '{log.path}' WHERE kind = 'train'"
    )
    assert duckdb.sql(query).fetchall() == [(1, 2.5, 1e-4, 0.1)]


def test_a_line_cut_by_a_kill_is_skipped_and_later_records_go(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for step in (1, 2, 3):
        log.write("train", {"step": step})
    with path.open("a") as file:
        file.write('{"kind": "tra')
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 3]
    MetricsLog(path).keep(lambda record: record["step"] <= 2)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_lines_that_a_full_disk_refuses_are_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.write("train", {"step": 1})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        assert "No space left on device" in log.write("train", {"step": 2})
    assert [record["step"] for record in read_metrics(path)] == [1]
    assert log.write("train", {"step": 3}) == ""
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 3]


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_an_unfinished_interval_is_taken_over():
    whole, first, second = RunningMeans(), RunningMeans(), RunningMeans()
    steps = [(("a", "b"), [0.1, 0.2]), (("a",), [0.3]), (("a", "b"), [0.7, 0.11])]
    for names, values in steps:
        whole.add(names, torch.tensor(values))
    for names, values in steps[:2]:
        first.add(names, torch.tensor(values))
    second.load_state_dict(first.state_dict(), torch.device("cpu"))
    second.add(steps[2][0], torch.tensor(steps[2][1]))
    assert second.take() == whole.take()


def test_evaluations_do_not_count_as_training_time(monkeypatch: pytest.MonkeyPatch):
    now = iter([0.0, 10.0, 16.0, 18.0]).__next__
    monkeypatch.setattr("student_train.runs.metrics.time.perf_counter", now)
    clock = Clock(total_steps=10, step=0)
    with clock.excluded():
        pass
    clock.waited = 3.0
    pace = clock.read(4, batch_size=8)
    # 18 s less the 6 s of the evaluation, for 4 steps of 8 images
    assert pace.images_per_second == pytest.approx(32 / 12)
    assert pace.seconds_left == pytest.approx(6 * 3)
    assert pace.data_wait == pytest.approx(3 / 12)


def status() -> Status:
    losses = {
        "total": 12.3,
        "class": 1.0,
        "box": 2.0,
        "giou": 3.0,
        "denoising": 4.0,
        "teacher:yolox": 2.3,
    }
    return Status(
        epoch=3,
        epochs=36,
        step=1200,
        steps=7330,
        images_per_second=12.34,
        data_wait=0.034,
        memory_gib=9.84,
        seconds_left=3723.0,
        lr=1e-4,
        losses=losses,
    )


def test_the_line_is_folded_and_names_every_teacher():
    assert status().line() == (
        "epoch 3/36  step 1200/7330  loss 12.30 "
        "(class 1.00 box 2.00 giou 3.00 denoising 4.00 yolox 2.30)  lr 0.0001  "
        "12.3 images/s  data wait 3%  9.8 GiB  1:02:03 left"
    )


def test_without_a_terminal_the_line_is_plain():
    out = io.StringIO()
    progress = ProgressLine(Console(file=out, width=40))
    progress.begin(7330, 0)
    progress.advance(1)
    progress.show(status())
    progress.close()
    assert out.getvalue() == status().line() + "\n"


def test_on_a_terminal_the_line_stays_in_place():
    out = io.StringIO()
    console = Console(file=out, width=200, force_terminal=True)
    progress = ProgressLine(console)
    progress.begin(7330, 1199)
    progress.show(status())
    progress.say("a message")
    progress.close()
    assert "a message" in out.getvalue()
    assert "\x1b[" in out.getvalue()


def test_other_processes_say_nothing(capfd: pytest.CaptureFixture[str]):
    progress = ProgressLine(None)
    progress.begin(1, 0)
    progress.show(status())
    progress.say("x")
    progress.remark("y")
    progress.close()
    assert capfd.readouterr() == ("", "")
    assert not progress.is_overdue


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (math.inf, "?")],
)
def test_durations(seconds: float, text: str):
    assert duration(seconds) == text
