"""Workers as Ray actors: one Ray for all tests of this module."""

import gc
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from box_store.errors import UsageError
from box_store.store.reader import read_boxes, read_images
from box_store.store.store import BoxStore
from teacher_infer.data.dataset import load_dataset
from teacher_infer.run.job import Job
from teacher_infer.run.prepare import prepare
from teacher_infer.run.progress import PlainReporter
from teacher_infer.run.service import Service
from teacher_infer.teachers.parsing import parse_teacher
from teacher_infer.teachers.spec import TeacherSpec
from teacher_infer.workers import ray_pool
from teacher_infer.workers.local_pool import LocalPool
from teacher_infer.workers.pool import WorkerPool
from teacher_infer.workers.ray_cluster import RayCluster, RayUnavailable
from teacher_infer.workers.ray_pool import RayPool
from teacher_infer.workers.worker import Worker

ray = pytest.importorskip("ray")

# Ray leaves sockets and files to the garbage collector when a process dies
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def ray_session() -> Iterator[None]:
    """More CPUs than actors, whatever the machine: these tests wait more than they compute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        cluster = RayCluster(None, num_cpus=8)
        yield
        # what Ray leaves to the garbage collector must not be found in somebody else's test
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            cluster.leave()
            gc.collect()


@dataclass
class Bench:
    data: Path
    folder: Path
    teacher: str

    def spec(self, name: str, keys: str = "") -> TeacherSpec:
        return parse_teacher(f"{name}={self.teacher},score_floor=0,threads=1,num_cpus=1{keys}")

    def run(
        self, *specs: TeacherSpec, pool: WorkerPool | None = None, store: str = "store"
    ) -> tuple[BoxStore, list[Job], str]:
        dataset = load_dataset(self.data, ["train"], None, None)
        box_store = BoxStore.open_or_create(self.folder / store, dataset.categories, dataset.info)
        jobs = [prepare(box_store, dataset, spec, 4) for spec in specs]
        console = Console(width=200)
        with console.capture() as capture, PlainReporter(console) as reporter:
            Service(box_store, dataset, pool or RayPool(specs), reporter).run(jobs)
        return box_store, jobs, capture.get()


@pytest.fixture
def bench(make_folder: Callable[..., Path], teacher: str, tmp_path: Path) -> Bench:
    return Bench(make_folder(16), tmp_path, teacher)


def statuses(store: BoxStore, teacher: str) -> dict[int, str]:
    rows = read_images(store, teacher).to_pylist()
    found = {row["image_id"]: row["status"] for row in rows}
    assert len(found) == len(rows)
    return found


def test_several_teachers_at_once_give_what_a_local_run_gives(bench):
    (bench.data / "train" / "000003.jpg").write_bytes(b"no image")
    specs = [bench.spec("one", ",workers=2"), bench.spec("two", ",top_k=1")]
    store, jobs, said = bench.run(*specs)
    local, _, _ = bench.run(*specs, pool=LocalPool(), store="local")
    for name in ("one", "two"):
        assert statuses(store, name) == statuses(local, name)
        assert statuses(store, name)[3] == "not_an_image"
        assert read_boxes(store, name).equals(read_boxes(local, name))
        assert store.record(name).fingerprint == local.record(name).fingerprint
        assert f"{name}: 16/16 images, done" in said
    assert [job.n_labelled for job in jobs] == [16, 16]
    # a pool that found Ray running leaves it running
    assert ray.is_initialized()


def test_a_dead_actor_is_replaced_and_its_unit_redone(bench, monkeypatch, tmp_path):
    marker = tmp_path / "died"

    class Mortal(Worker):
        """Dies once, in the middle of a unit, as the out-of-memory killer would have it."""

        def label(self, tasks: Any, class_map: Any, careful: bool = False) -> Any:
            for labelled in super().label(tasks, class_map, careful):
                if labelled.rows[0].image_id == 7 and not marker.exists():
                    marker.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                yield labelled

    monkeypatch.setattr(ray_pool, "Worker", Mortal)
    store, _, said = bench.run(bench.spec("one", ",batch_size=2"))
    assert marker.exists()
    assert statuses(store, "one") == dict.fromkeys(range(1, 17), "ok")
    assert "another redoes unit 1" in said


def test_a_teacher_that_cannot_be_loaded_does_not_stop_the_others(bench, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    bad = parse_teacher(f"bad=onnx:{broken},format=boxes,num_cpus=1")
    store, jobs, _ = bench.run(bad, bench.spec("good"))
    assert "broken.onnx" in jobs[0].error
    assert len(statuses(store, "good")) == 16


def test_a_worker_that_no_machine_can_hold_is_refused_at_once(bench):
    spec = bench.spec("one", ",num_gpus=1")
    pool = RayPool([spec])
    with pytest.raises(UsageError, match=r"asks for 1 GPUs a worker.*num_gpus"):
        pool.start(spec)
    with pytest.raises(UsageError, match="asks for 9 CPUs"):
        pool.start(parse_teacher(f"one={bench.teacher},num_cpus=9"))
    pool.close()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9"])
def test_a_cluster_that_is_not_there(bench, monkeypatch, address):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(RayUnavailable, match=r"no Ray cluster answers at .*refused.*ray start"):
        RayPool([bench.spec("one")], address)


def test_a_ray_that_does_not_start_is_tried_again_then_said(bench, monkeypatch):
    calls = []

    def fail(**options: Any) -> None:
        calls.append(options)
        raise RuntimeError("The current node timed out during startup. Perhaps.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fail)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(RayUnavailable, match=r"does not start: The current node"):
        RayPool([bench.spec("one")])
    assert len(calls) == 2
    assert calls[0]["address"] == "local"
    assert calls[0]["_node_ip_address"] == "127.0.0.1"


def test_workers_are_no_nicer_than_the_driver():
    # Ray's own default is 15: beside any busy process a teacher would all but stop
    assert ray.get(ray.remote(lambda: os.nice(0)).remote()) == os.nice(0)


def test_actors_go_when_the_pool_closes(bench):
    specs = [bench.spec("one", ",workers=2")]
    pool = RayPool(specs)
    for _ in range(2):
        pool.start(specs[0])
    pool.close()
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU", 0) < 8:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_cpus_are_shared_by_the_workers_of_all_teachers(bench, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    one, two = (parse_teacher(f"{name}={bench.teacher},workers=2") for name in ("one", "two"))
    pool = RayPool([one, two])
    assert pool._cpu_share == 2
    assert RayPool([one, *[two] * 9])._cpu_share == 1
    pool.close()
