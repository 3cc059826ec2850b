"""A store that goes away, for a while or for good."""

import errno
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from box_store.categories import Categories
from box_store.errors import StoreError
from box_store.store.records import DatasetInfo
from box_store.store.store import BoxStore
from teacher_infer.run.store_watch import StoreWatch


@dataclass
class Mount:
    """A store that can be unmounted, with a clock that goes only while somebody waits."""

    path: Path
    back_at: float | None = None
    now: float = 0.0
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        categories = Categories.from_coco([{"id": 1, "name": "person"}])
        store = BoxStore.create(self.path, categories, DatasetInfo("train", "ab" * 32, 4))
        self.watch = StoreWatch(store, self.said.append, 60.0, lambda: self.now, self.sleep)

    def unmount(self) -> None:
        self.path.rename(self.path.with_name("elsewhere"))

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.back_at is not None and self.now >= self.back_at:
            self.path.with_name("elsewhere").rename(self.path)
            self.back_at = None

    def use(self) -> str:
        return (self.path / "store.json").read_text()[:1]


@pytest.fixture
def mount(tmp_path: Path) -> Mount:
    return Mount(tmp_path / "store")


def test_a_store_that_is_there_is_used_without_a_word(mount):
    assert mount.watch.patiently(mount.use) == "{"
    assert mount.said == []


def test_a_store_that_comes_back_is_waited_for(mount):
    mount.unmount()
    mount.back_at = 30.0
    assert mount.watch.patiently(mount.use) == "{"
    assert mount.now == 30.0
    assert mount.said[0].endswith("is gone: waiting up to 1:00 for its return")
    assert mount.said[1].endswith("is back after 0:30")


def test_a_store_that_stays_away_ends_the_run_with_a_sentence(mount):
    mount.unmount()
    with pytest.raises(StoreError, match=r"did not come back within 1:00.*run the same command"):
        mount.watch.patiently(mount.use)
    assert not mount.path.exists()


def test_errors_of_a_store_that_is_there_are_not_waited_out(mount):
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        mount.watch.patiently(full)
    assert mount.said == []
