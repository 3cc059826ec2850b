"""What a worker says it has loaded: the first of a teacher enters it in the store, the others must
have loaded the same.
"""

from collections.abc import Callable, Mapping

from box_store.store.records import TeacherRecord
from teacher_infer.adapters.protocol import AdapterError
from teacher_infer.data.dataset import Dataset
from teacher_infer.run.job import Job
from teacher_infer.run.plan import make_record, runtime_of
from teacher_infer.run.prepare import describe
from teacher_infer.workers.worker import Loaded


def introduce(
    job: Job,
    loaded: Loaded,
    dataset: Dataset,
    register: Callable[[TeacherRecord], TeacherRecord],
) -> str:
    """Take a worker's word for its teacher; a sentence on the class map where it is the first.

    Raises:
        AdapterError: it loaded other weights than the driver sees, or than the workers before it.
        TeachDetrError: the teacher knows none of the data set's classes, or as `register` raises.
    """
    _check_weights(job, loaded)
    if job.loaded is not None:
        if _identity(loaded) != _identity(job.loaded):
            raise AdapterError(
                f"teacher {job.name}: two workers loaded different models from "
                f"{job.spec.model!r}: the machines of the cluster hold different files, versions "
                f"or devices{_on(loaded)}"
            )
        return ""
    # now its classes are known, and it can be registered
    job.class_map = describe(job.spec, dataset, loaded)
    record = make_record(
        job.spec,
        dataset,
        job.unit_size,
        class_map=job.class_map,
        weights=loaded.weights_sha256,
        licence=loaded.licence,
        versions=loaded.versions,
        runtime=loaded.runtime if job.record is None else _noted(job.record, loaded),
    )
    job.record = register(record)
    job.loaded = loaded
    return f"{job.name}: {job.class_map.summary()}"


def _check_weights(job: Job, loaded: Loaded) -> None:
    """AdapterError where a worker loaded other bytes than the driver sees under the same path."""
    ours, theirs = job.weights_sha256, loaded.weights_sha256
    if ours and theirs and ours != theirs:
        raise AdapterError(
            f"teacher {job.name}: a worker loaded other weights from {job.spec.model!r}"
            f"{_on(loaded)}: expected sha256 {ours[:12]}, got {theirs[:12]}. The file there is "
            "damaged or another version: copy it again, then run the same command"
        )


def _noted(record: TeacherRecord, loaded: Loaded) -> Mapping[str, str]:
    """What is compared of the runtime: nothing where the record was made before it was noted."""
    return loaded.runtime if runtime_of(record) else {}


def _on(loaded: Loaded) -> str:
    return f" (on {loaded.host})" if loaded.host else ""


def _identity(loaded: Loaded) -> tuple[object, ...]:
    return loaded.class_names, loaded.weights_sha256, loaded.runtime
