"""Which pool of workers a run gets: Ray's, or this process alone."""

import importlib.util
from collections.abc import Sequence

from box_store.errors import UsageError
from teacher_infer.teachers.spec import TeacherSpec
from teacher_infer.workers.local_pool import LocalPool
from teacher_infer.workers.pool import WorkerPool


def choose_pool(
    specs: Sequence[TeacherSpec], local: bool, isolate: bool, address: str | None
) -> tuple[WorkerPool, str]:
    """Where the workers run, and a word on why it isn't Ray.

    Raises:
        UsageError: an address without Ray installed.
        RayUnavailable: there is no cluster at the address.
    """
    if local:
        return LocalPool(isolate), ""
    if importlib.util.find_spec("ray") is None:
        install = "pip install 'teach-detr[ray]'"
        if address:
            raise UsageError(f"--address needs Ray, which is not installed: {install}")
        return LocalPool(), f"; {install} for several at once"
    from teacher_infer.workers.ray_cluster import RayUnavailable
    from teacher_infer.workers.ray_pool import RayPool

    try:
        return RayPool(specs, address), ""
    except RayUnavailable as error:
        if address:
            raise
        return LocalPool(), f"; {error}"
