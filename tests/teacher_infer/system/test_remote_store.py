"""The service over a store in a bucket: one driver at a time, and a server that goes away."""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from box_store.places.lease import TakenOver, hold
from box_store.places.locations import location
from box_store.store.reader import read_images
from box_store.store.store import BoxStore
from teacher_infer.cli import main
from teacher_infer.data.dataset import load_dataset
from teacher_infer.run import service
from teacher_infer.run.prepare import prepare
from teacher_infer.run.progress import PlainReporter
from teacher_infer.run.service import Service
from teacher_infer.run.store_watch import StoreWatch
from teacher_infer.teachers.parsing import parse_teacher
from teacher_infer.workers.local_pool import LocalPool
from teacher_infer.workers.pool import Event


class WatchedPool(LocalPool):
    """Calls `on_poll` with the number of each poll."""

    def __init__(self, on_poll: Callable[[int], None]) -> None:
        super().__init__()
        self._on_poll = on_poll
        self._n_polls = 0

    def poll(self, timeout: float) -> list[Event]:
        self._n_polls += 1
        self._on_poll(self._n_polls)
        return super().poll(timeout)


@pytest.fixture
def remote(server: Any, request: Any, make_folder: Any, teacher: str) -> Any:
    """run(on_poll) -> what was said; its `url`, `store` and `statuses`."""

    class Remote:
        url = location(server.url(f"bucket/{request.node.name}"))
        data = make_folder(12)
        dataset = load_dataset(data, ["train"], None, None)
        store = BoxStore.create(url, dataset.categories, dataset.info)

        def run(self, on_poll: Callable[[int], None], takeover: bool = False) -> str:
            console = Console(width=200)
            job = prepare(self.store, self.dataset, parse_teacher(f"tiny={teacher}"), 3)
            with console.capture() as capture, PlainReporter(console) as reporter:
                pool = WatchedPool(on_poll)
                Service(self.store, self.dataset, pool, reporter).run([job], takeover=takeover)
            assert job.error == ""
            return capture.get()

        def statuses(self) -> dict[int, str]:
            rows = read_images(self.store, "tiny").to_pylist()
            return {row["image_id"]: row["status"] for row in rows}

    return Remote()


def test_a_server_that_does_not_answer_for_a_while_is_waited_for(
    remote: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def goes(n_polls: int) -> None:
        if n_polls == 4:
            server.stop()

    def comes_back(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            server.start()

    monkeypatch.setattr(service, "StoreWatch", partial(StoreWatch, sleep=comes_back))
    said = remote.run(goes)
    assert len(waits) == 2
    assert f"the store {remote.url} is gone: waiting up to 10:00 for its return" in said
    assert "is back after" in said
    assert remote.statuses() == dict.fromkeys(range(1, 13), "ok")


def test_a_driver_whose_store_is_taken_over_stops_without_writing(remote: Any) -> None:
    units_before: list[int] = []

    def another_comes(n_polls: int) -> None:
        if n_polls == 5:
            other.__enter__()
            units_before.append(len(remote.store.units_done("tiny")))

    other = hold(remote.url, takeover=True)
    with pytest.raises(TakenOver, match="was taken over by process"):
        remote.run(another_comes)
    assert units_before == [len(remote.store.units_done("tiny"))]
    assert units_before[0] < 4
    # the other's work is not disturbed, and another driver ends what was begun
    other.__exit__(None, None, None)
    remote.run(lambda n_polls: None)
    assert len(remote.store.units_done("tiny")) == 4


def test_an_idle_driver_notices_at_its_next_renewal(
    remote: Any, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "hold", partial(hold, lapses_s=0.4))

    class Silent(WatchedPool):
        """Its workers never say a word."""

        def poll(self, timeout: float) -> list[Event]:
            super().poll(timeout)
            time.sleep(0.05)
            return []

    other = hold(remote.url, takeover=True)

    def another_comes(n_polls: int) -> None:
        if n_polls == 2:
            other.__enter__()

    pool = Silent(another_comes)
    job = prepare(remote.store, remote.dataset, parse_teacher(f"tiny={teacher}"), 3)
    with PlainReporter(Console(quiet=True)) as reporter, pytest.raises(TakenOver):
        Service(remote.store, remote.dataset, pool, reporter).run([job])
    other.__exit__(None, None, None)


def test_the_commands_take_over_when_told(
    remote: Any, teacher: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        return int(ended.value.code or 0), capsys.readouterr().err

    run = ("run", "--local", "--data", str(remote.data), "--split", "train")
    run = (*run, "--store", str(remote.url), "--teacher", f"tiny={teacher}")
    results = tmp_path / "r.json"
    box = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "score": 0.5}
    results.write_text(json.dumps([box]))
    annotations = str(remote.data / "annotations" / "instances_train.json")
    lab = ("import", "--store", str(remote.url), "--name", "lab", "--results", str(results))
    lab = (*lab, "--annotations", annotations)
    for command in (run, lab):
        with hold(remote.url):
            code, said = call(*command)
            assert (code, "--takeover" in said) == (1, True)
            assert call(*command, "--takeover")[0] == 0
    assert set(remote.store.teachers) == {"lab", "tiny"}
