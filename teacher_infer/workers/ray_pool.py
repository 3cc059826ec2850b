"""Workers as Ray actors, on this machine or on a cluster."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import ray
from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
)

from box_store.errors import UsageError
from teacher_infer.data.images import ImageTask
from teacher_infer.teachers.class_map import ClassMap
from teacher_infer.teachers.spec import TeacherSpec
from teacher_infer.workers.pool import (
    Batch,
    Cause,
    Died,
    Event,
    Finished,
    Ready,
    Refused,
    Started,
    thread_environment,
    thread_limit,
)
from teacher_infer.workers.ray_cluster import RayCluster
from teacher_infer.workers.worker import LoadFailed, Worker

# batches that a worker may be ahead of the driver
_BATCHES_AHEAD = 16
# Ray has no class of its own for an actor that went with its node, only these words
_NODE_DIED = "its node has died"


@dataclass
class _Actor:
    handle: Any
    starting: Any  # reference that resolves when the actor has left Ray's queue, until it has
    loading: Any  # reference to the answer of load(), until it has come
    labels: Any = None  # generator of references to the batches of the unit in hand

    @property
    def awaited(self) -> Any:
        """What it answers next; None where it has nothing to do."""
        asked = (self.starting, self.loading, self.labels)
        return next((one for one in asked if one is not None), None)


class RayPool:
    """One actor a worker. Actors that do not fit yet wait in Ray's queue until others are released.

    specs: all teachers of the run, who share the CPUs evenly unless they say otherwise.
    address: as `RayCluster` takes it; a cluster started here lasts as long as the pool.
    """

    def __init__(self, specs: Sequence[TeacherSpec], address: str | None = None) -> None:
        self._cluster = RayCluster(address)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        total = {key: sum(node.get(key, 0) for node in nodes) for key in ("CPU", "GPU")}
        self._largest = {
            key: max((node.get(key, 0) for node in nodes), default=0) for key in ("CPU", "GPU")
        }
        self._may_grow = address is not None
        n_workers = sum(spec.workers for spec in specs)
        share = min(total["CPU"] // n_workers, self._largest["CPU"])
        self._cpu_share = max(1, int(share))
        self._actors: dict[int, _Actor] = {}
        self._numbers = count()
        where = f"cluster of {len(nodes)}" if address else "this machine"
        self.description = (
            f"Ray {ray.__version__} on {where}: {total['CPU']:g} CPUs, {total['GPU']:g} GPUs"
        )

    def start(self, spec: TeacherSpec) -> int:
        """See `WorkerPool.start`; there is always room, if only in Ray's queue.

        Raises:
            UsageError: no machine is large enough for this worker.
        """
        device, num_gpus = self._device(spec)
        num_cpus = self._cpu_share if spec.num_cpus is None else spec.num_cpus
        self._check_fits(spec, {"CPU": num_cpus, "GPU": num_gpus})
        threads = spec.threads or thread_limit(max(1, num_cpus))
        actor_class: Any = ray.remote(Worker)
        handle = actor_class.options(
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            # the service replaces dead workers: it knows which unit to redo, how often
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": thread_environment(threads)},
        ).remote(spec.adapter_spec(device, threads))
        number = next(self._numbers)
        started = handle.__ray_ready__.remote()
        self._actors[number] = _Actor(handle, started, loading=handle.load.remote())
        return number

    def _device(self, spec: TeacherSpec) -> tuple[str, float]:
        """Device and number of GPUs of a worker; Ray shows an actor only its own, from 0 on."""
        if spec.device == "auto":
            default = 1 if self._largest["GPU"] > 0 else 0
            return "auto", default if spec.num_gpus is None else spec.num_gpus
        on_gpu = spec.device.startswith("cuda")
        default = 1 if on_gpu else 0
        device = "cuda" if on_gpu else spec.device
        return device, default if spec.num_gpus is None else spec.num_gpus

    def _check_fits(self, spec: TeacherSpec, needs: dict[str, float]) -> None:
        for key, amount in needs.items():
            if amount > self._largest[key] and not self._may_grow:
                raise UsageError(
                    f"teacher {spec.name} asks for {amount:g} {key}s a worker, the largest machine "
                    f"here has {self._largest[key]:g}: lower num_{key.lower()}s, or change device"
                )

    def submit(
        self, worker: int, tasks: Sequence[ImageTask], class_map: ClassMap, careful: bool
    ) -> None:
        """See `WorkerPool.submit`."""
        actor = self._actors[worker]
        actor.labels = actor.handle.label.options(
            num_returns="streaming", _generator_backpressure_num_objects=_BATCHES_AHEAD
        ).remote(tuple(tasks), class_map, careful)

    def poll(self, timeout: float) -> list[Event]:
        """See `WorkerPool.poll`."""
        waiting = {
            reference: number
            for number, actor in self._actors.items()
            if (reference := actor.awaited) is not None
        }
        if not waiting:
            return []
        references = list(waiting)
        ready, _ = ray.wait(references, num_returns=1, timeout=timeout)
        if ready and len(references) > 1:
            ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
        return [self._event(waiting[reference]) for reference in ready]

    def _event(self, number: int) -> Event:
        actor = self._actors[number]
        try:
            if actor.starting is not None:
                ray.get(actor.starting)
                actor.starting = None
                return Started(number)
            if actor.loading is not None:
                loaded: Any = ray.get(actor.loading)
                actor.loading = None
                if isinstance(loaded, LoadFailed):
                    self.stop(number)
                    return Refused(number, loaded.message, loaded.exit_code)
                return Ready(number, loaded)
            labelled: Any = ray.get(next(actor.labels))
            if isinstance(labelled, LoadFailed):
                self.stop(number)
                return Refused(number, labelled.message, labelled.exit_code)
            return Batch(number, labelled)
        except StopIteration:
            actor.labels = None
            return Finished(number)
        except RayError as error:
            self.stop(number)
            return Died(number, _reason(error), _cause(error))

    def stop(self, worker: int) -> None:
        """See `WorkerPool.stop`."""
        actor = self._actors.pop(worker, None)
        if actor is not None:
            ray.kill(actor.handle, no_restart=True)

    def close(self) -> None:
        """See `WorkerPool.close`; ends Ray too, if this pool started it."""
        for worker in list(self._actors):
            self.stop(worker)
        self._cluster.leave()


def _reason(error: RayError) -> str:
    """One line out of Ray's page."""
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "exit" in line.lower() or "memory" in line.lower()]
    return (telling or lines or [type(error).__name__])[0]


def _cause(error: RayError) -> Cause:
    if isinstance(error, OutOfMemoryError):
        return Cause.MEMORY
    if isinstance(error, NodeDiedError) or _NODE_DIED in str(error):
        return Cause.MACHINE
    return Cause.CRASH
