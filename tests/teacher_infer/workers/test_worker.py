"""The worker: one row an image, whatever the teacher or the files do."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from box_store.boxes import Boxes
from box_store.categories import Categories
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec
from teacher_infer.data.dataset import load_dataset
from teacher_infer.data.images import ImageTask
from teacher_infer.teachers.class_map import ClassMap
from teacher_infer.workers import worker as actor
from teacher_infer.workers.worker import Loaded, LoadFailed, Worker, WorkerBroken

NAMES = ("person", "unicorn")


class FakeTeacher:
    """One person box an image, and one of a class that no data set has."""

    class_names = NAMES
    licence = "MIT"
    versions: dict[str, str] = {"fake": "1"}  # noqa: RUF012
    runtime: dict[str, str] = {"nms": "none"}  # noqa: RUF012

    def __init__(self, before: Callable[[list[np.ndarray]], None] = lambda images: None) -> None:
        self.before = before
        self.batches: list[int] = []

    def predict(self, images: list[np.ndarray]) -> list[Boxes]:
        self.batches.append(len(images))
        self.before(images)
        corners = np.array([[1, 1, 9, 9], [2, 2, 8, 8]])
        return [
            Boxes(corners, np.array([0.9, 0.8]), np.array([0, 1]), image.shape[1], image.shape[0])
            for image in images
        ]


@pytest.fixture
def class_map() -> ClassMap:
    return ClassMap.build(NAMES, Categories.from_coco([{"id": 5, "name": "person"}]), None)


@pytest.fixture
def make_worker(monkeypatch: pytest.MonkeyPatch):
    def make(teacher: FakeTeacher, batch_size: int = 4) -> Worker:
        monkeypatch.setattr(actor, "load_teacher", lambda spec: teacher)
        monkeypatch.setattr(actor, "weights_files", lambda spec: [])
        worker = Worker(AdapterSpec("onnx", "fake.onnx", batch_size=batch_size, threads=1))
        assert isinstance(worker.load(), Loaded)
        return worker

    return make


@pytest.fixture
def tasks(make_folder) -> tuple[ImageTask, ...]:
    return load_dataset(make_folder(10), ["train"], None, None).tasks


def rows_of(worker: Worker, tasks: Sequence[ImageTask], class_map: ClassMap, careful=False):
    return [row for part in worker.label(tasks, class_map, careful) for row in part.rows]


def test_every_image_gets_its_row_in_order_and_in_batches(make_worker, tasks, class_map):
    teacher = FakeTeacher()
    rows = rows_of(make_worker(teacher), tasks, class_map)
    assert [row.image_id for row in rows] == [task.image_id for task in tasks]
    assert {row.status for row in rows} == {"ok"}
    assert all(row.boxes is not None and row.boxes.class_ids.tolist() == [5] for row in rows)
    assert all(row.seconds > 0 for row in rows)
    assert teacher.batches == [4, 4, 2]


def test_boxes_of_unmapped_classes_are_counted(make_worker, tasks, class_map):
    parts = list(make_worker(FakeTeacher()).label(tasks, class_map))
    assert [part.unmapped for part in parts] == [{"unicorn": 4}, {"unicorn": 4}, {"unicorn": 2}]


def test_careful_is_one_at_a_time(make_worker, tasks, class_map):
    teacher = FakeTeacher()
    rows = rows_of(make_worker(teacher), tasks, class_map, careful=True)
    assert [row.image_id for row in rows] == [task.image_id for task in tasks]
    assert teacher.batches == [1] * 10


def test_a_batch_that_fails_is_retried_image_by_image(make_worker, tasks, class_map):
    # image 3 of the fixture is uniformly 111
    def fail(images):
        if any(abs(int(image[0, 0, 0]) - 111) < 3 for image in images):
            raise RuntimeError("cannot digest this\nand a second line")

    rows = rows_of(make_worker(FakeTeacher(fail)), tasks, class_map)
    assert [row.image_id for row in rows if row.status != "ok"] == [3]
    bad = rows[2]
    assert (bad.status, bad.boxes) == ("predict_error", None)
    assert bad.error == "RuntimeError: cannot digest this"
    assert (bad.width, bad.height) == (64, 48)


def full_gpu() -> Exception:
    """As torch words it."""
    torch = pytest.importorskip("torch")
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def wrapped() -> Exception:
    """As `LoadedTeacher` hands on what a framework raised."""
    error = AdapterError("onnx:x.onnx failed on 4 images: MemoryError")
    error.__cause__ = MemoryError()
    return error


@pytest.mark.parametrize(
    "error",
    [
        full_gpu,
        wrapped,
        MemoryError,
        lambda: RuntimeError("CUDA out of memory"),
        lambda: RuntimeError("CUDA error: out of memory"),
    ],
)
def test_a_batch_too_large_for_memory_is_halved_and_that_is_remembered(
    make_worker, tasks, class_map, error
):
    def fail(images):
        if len(images) > 2:
            raise error()

    teacher = FakeTeacher(fail)
    worker = make_worker(teacher, batch_size=8)
    parts = list(worker.label(tasks, class_map))
    rows = [row for part in parts for row in part.rows]
    assert [row.image_id for row in rows] == [task.image_id for task in tasks]
    assert {row.status for row in rows} == {"ok"}
    # 8 do not fit, 4 do not, 2 do; from then on nothing larger is tried
    assert teacher.batches == [8, 4, 2, 2, 2, 2, 2]
    assert [part.batch_size for part in parts] == [2, 2]
    assert rows_of(worker, tasks[:4], class_map)
    assert teacher.batches[7:] == [2, 2]


def test_an_image_too_large_for_memory_alone_is_recorded(make_worker, tasks, class_map):
    def fail(images):
        raise RuntimeError("CUDA out of memory")

    rows = rows_of(make_worker(FakeTeacher(fail)), tasks[:3], class_map)
    assert {(row.status, row.error) for row in rows} == {
        ("predict_error", "RuntimeError: CUDA out of memory")
    }


def test_bad_files_take_no_other_image_with_them(make_worker, tasks, class_map, tmp_path):
    folder = tmp_path / "coco" / "train"
    (folder / tasks[0].file_name).unlink()
    (folder / tasks[4].file_name).write_bytes(b"no image")
    teacher = FakeTeacher()
    rows = rows_of(make_worker(teacher), tasks, class_map)
    bad = {row.image_id: row.status for row in rows if row.status != "ok"}
    assert bad == {1: "missing_file", 5: "not_an_image"}
    assert teacher.batches == [3, 3, 2]


def test_a_batch_without_any_good_image(make_worker, tasks, class_map, tmp_path):
    for task in tasks:
        (tmp_path / "coco" / "train" / task.file_name).unlink()
    teacher = FakeTeacher()
    assert {row.status for row in rows_of(make_worker(teacher), tasks, class_map)} == {
        "missing_file"
    }
    assert teacher.batches == []


def test_too_few_answers_are_an_error_of_the_teacher(make_worker, tasks, class_map, monkeypatch):
    teacher = FakeTeacher()
    worker = make_worker(teacher)
    monkeypatch.setattr(teacher, "predict", lambda images: [])
    rows = rows_of(worker, tasks, class_map)
    assert {row.status for row in rows} == {"predict_error"}
    assert "expected boxes of 1 images, got 0" in rows[0].error


def test_a_broken_gpu_needs_another_process(make_worker, tasks, class_map):
    def fail(images):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(WorkerBroken, match="illegal memory access"):
        rows_of(make_worker(FakeTeacher(fail)), tasks, class_map)


def test_images_are_decoded_ahead_but_not_without_bound(make_worker, tasks, class_map, monkeypatch):
    decoded = []
    load = actor.load_image

    def counting(task):
        decoded.append(task.image_id)
        return load(task)

    monkeypatch.setattr(actor, "load_image", counting)
    parts = make_worker(FakeTeacher(), batch_size=2).label(tasks, class_map)
    next(parts)
    assert len(decoded) <= 2 + 2 * 2
    assert len(list(parts)) == 4


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (AdapterError("no such weights"), "no such weights"),
        (ValueError("odd shape"), "onnx:fake.onnx: ValueError: odd shape"),
        (OSError(), "onnx:fake.onnx: OSError"),
    ],
)
def test_a_teacher_that_cannot_be_loaded_is_told_as_data(monkeypatch, error, says):
    def fail(spec):
        raise error

    monkeypatch.setattr(actor, "load_teacher", fail)
    failed = Worker(AdapterSpec("onnx", "fake.onnx")).load()
    assert failed == LoadFailed(says, 1)


def test_what_a_worker_says_of_itself(detector):
    spec = AdapterSpec("onnx", str(detector), options={"format": "boxes"}, threads=1)
    loaded = Worker(spec).load()
    assert isinstance(loaded, Loaded)
    assert len(loaded.weights_sha256) == 64
    assert "onnxruntime" in loaded.versions
