"""What is known of a teacher before its run: from the store, or by loading it once."""

import time
from collections import deque

from box_store.store.reader import read_images
from box_store.store.store import BoxStore
from box_store.wording import counted, some_of
from teacher_infer.adapters.protocol import AdapterError
from teacher_infer.data.dataset import Dataset
from teacher_infer.data.images import ImageTask
from teacher_infer.run.attempt import Attempt
from teacher_infer.run.deadline import in_time, too_slow
from teacher_infer.run.job import Job
from teacher_infer.run.plan import default_unit_size, make_record, make_units, runtime_of
from teacher_infer.teachers.class_map import ClassMap
from teacher_infer.teachers.loaded import weights_files, weights_sha256
from teacher_infer.teachers.spec import TeacherSpec
from teacher_infer.workers.pool import Died, Ready, Refused, WorkerPool
from teacher_infer.workers.worker import Loaded

_POLL_S = 0.2


def prepare(
    store: BoxStore | None,
    dataset: Dataset,
    spec: TeacherSpec,
    unit_size: int | None = None,
    redo_bad: bool = False,
) -> Job:
    """What is left to do for a teacher, found out without loading it.

    A teacher that the store knows is compared with its record at once: its class names are there.

    Raises:
        UsageError: a key or value that the adapter does not know, or a prompt for no class.
        AdapterError: a file that the model needs is missing, or its disk does not answer.
        FingerprintMismatch: the name holds boxes of another configuration.
    """
    spec = spec.asking(dataset.categories.names)
    asked = spec.adapter_spec("cpu", 1)
    files = in_time(spec, "looking for its files", lambda: weights_files(asked))
    record = store.teachers.get(spec.name) if store is not None else None
    if record is not None and unit_size is None:
        unit_size = record.unit_size
    unit_size = unit_size or default_unit_size(len(dataset.tasks))
    units = make_units(dataset.tasks, unit_size)
    weights = in_time(spec, "reading its weights", lambda: weights_sha256(files))
    todo = deque(map(Attempt, units))
    job = Job(spec, unit_size, len(dataset.tasks), todo, weights_sha256=weights)
    if store is None or record is None:
        return job
    job.class_map = ClassMap.build(list(record.class_map), dataset.categories, spec.class_map)
    job.record = store.register(
        make_record(
            spec,
            dataset,
            unit_size,
            class_map=job.class_map,
            weights=weights or record.weights_sha256,
            licence=spec.licence or record.licence,
            versions=dict(record.versions),
            runtime=runtime_of(record),
        )
    )
    done = store.units_done(spec.name)
    if redo_bad:
        job.redo = {unit.index for unit in units if unit.index in done} & _bad_units(store, job)
    job.todo = deque(Attempt(unit) for unit in units if unit.index not in done - job.redo)
    job.n_before = job.n_images - sum(len(attempt.unit.tasks) for attempt in job.todo)
    return job


def _bad_units(store: BoxStore, job: Job) -> set[int]:
    """Committed units with an image whose status is not `ok`."""
    images = read_images(store, job.name, ["split", "image_id", "status"]).to_pydict()
    rows = zip(images["split"], images["image_id"], images["status"], strict=True)
    bad = {(split, image_id) for split, image_id, status in rows if status != "ok"}
    return {
        attempt.unit.index
        for attempt in job.todo
        if any(not bad.isdisjoint(_keys(task)) for task in attempt.unit.tasks)
    }


def _keys(task: ImageTask) -> tuple[tuple[str, int], ...]:
    """Under which an image may be in the store: units of its first format name no split."""
    return task.key, ("", task.image_id)


def describe(spec: TeacherSpec, dataset: Dataset, loaded: Loaded) -> ClassMap:
    """The class map of a loaded teacher; AdapterError when nothing it finds is in the data set."""
    class_map = ClassMap.build(loaded.class_names, dataset.categories, spec.class_map)
    if len(class_map.unmapped) == len(class_map.mapping):
        n_theirs = counted(len(loaded.class_names), "class", "classes")
        theirs, ours = some_of(loaded.class_names), some_of(dataset.categories.names)
        raise AdapterError(
            f"teacher {spec.name}: none of its {n_theirs} ({theirs}) "
            f"is a category of the data set ({ours}): name the "
            "pairs with map.CLASS=CATEGORY, or its classes with classes=FILE"
        )
    return class_map


def probe(pool: WorkerPool, spec: TeacherSpec) -> Loaded:
    """Load a teacher in a worker of an idle pool, just to hear what it says of itself.

    Raises:
        AdapterError: it cannot be loaded, or not in time.
    """
    began = time.monotonic()
    try:
        pool.start(spec)
        while time.monotonic() - began <= spec.load_limit_s:
            for event in pool.poll(_POLL_S):
                if isinstance(event, Ready):
                    return event.loaded
                if isinstance(event, Refused):
                    raise AdapterError(f"teacher {spec.name}: {event.message}")
                if isinstance(event, Died):
                    raise AdapterError(f"teacher {spec.name} cannot be loaded: {event.reason}")
        raise too_slow(spec, "loading")
    finally:
        pool.close()
