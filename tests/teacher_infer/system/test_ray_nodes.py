"""A Ray cluster whose nodes come and go in the middle of a run."""

import gc
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from box_store.store.reader import read_images
from box_store.store.store import BoxStore
from teacher_infer.data.dataset import load_dataset
from teacher_infer.run.prepare import prepare
from teacher_infer.run.progress import PlainReporter
from teacher_infer.run.service import Service
from teacher_infer.teachers.parsing import parse_teacher
from teacher_infer.workers.pool import Event
from teacher_infer.workers.worker import Worker

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")

from teacher_infer.workers import ray_pool  # noqa: E402

# Ray leaves sockets and files to the garbage collector when a process dies
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

_NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that computes nothing, and one machine that does."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    made = cluster_utils.Cluster(
        initialize_head=True,
        head_node_args=_NODE | {"num_cpus": 0, "include_dashboard": False},
    )
    try:
        yield made
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            ray.shutdown()
            made.shutdown()
            gc.collect()


class Slow(Worker):
    """Gives the test time to interfere."""

    def label(self, tasks: Any, class_map: Any, careful: bool = False) -> Any:
        for labelled in super().label(tasks, class_map, careful):
            time.sleep(0.2)
            yield labelled


def test_nodes_that_come_and_go_lose_nothing(cluster, make_folder, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_pool, "Worker", Slow)
    dataset = load_dataset(make_folder(24), ["train"], None, None)
    store = BoxStore.create(tmp_path / "store", dataset.categories, dataset.info)
    keys = "score_floor=0,threads=1,num_cpus=1,batch_size=2,workers=2"
    job = prepare(store, dataset, parse_teacher(f"one={teacher},{keys}"), 6)
    doomed = cluster.add_node(**_NODE)
    pool = ray_pool.RayPool([job.spec], cluster.address)
    poll = pool.poll

    def poll_and_interfere(timeout: float) -> list[Event]:
        events = poll(timeout)
        if job.n_committed == 1 and not job.lost and doomed in cluster.list_all_nodes():
            # the only machine goes, then another comes
            cluster.remove_node(doomed, allow_graceful=False)
            cluster.add_node(**_NODE)
        return events

    monkeypatch.setattr(pool, "poll", poll_and_interfere)
    with PlainReporter(Console(width=200)) as reporter:
        Service(store, dataset, pool, reporter).run([job])
    rows = read_images(store, "one").to_pylist()
    assert sorted(row["image_id"] for row in rows) == list(range(1, 25))
    assert {row["status"] for row in rows} == {"ok"}
    assert job.lost.total() > 0
    assert not job.failed_units
