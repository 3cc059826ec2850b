"""Many training runs over few devices: here, one at a time on each, or as tasks of a Ray cluster.

A run that fails takes nothing with it: the others go on, and what it said stays in its log.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from box_store.patience import EVERY_S
from student_train.machine.interrupt import was_stopped
from student_train.runs.run_folder import PATIENCE_S
from teach_detr.runs import worker
from teach_detr.runs.stages import start, stop


@dataclass(frozen=True)
class Job:
    """One command, `python -m` followed by `words`, and the file that takes what it prints."""

    name: str
    words: tuple[str, ...]
    log: Path


@dataclass(frozen=True)
class Ended:
    """How a job ended: without an `error`, or with the end of what it said."""

    job: Job
    seconds: float
    error: str | None


Finished = Callable[[Ended], None]
Waiting = Callable[[Sequence[Job]], None]


def run_here(
    jobs: Sequence[Job],
    devices: Sequence[str],
    finished: Finished,
    waiting_for: Waiting = lambda jobs: None,
) -> None:
    """Run the jobs, one at a time on each device; `finished` hears of each, in this thread, and
    `waiting_for`, every ten seconds in between, of those that have not ended.

    A device other than auto is given to the trainer as `device=NAME`.

    Raises:
        KeyboardInterrupt: this process, or a job, was stopped; the jobs were told to save first.
    """
    # several runs on one machine share its cores
    threads = max(1, len(os.sched_getaffinity(0)) // len(devices)) if len(devices) > 1 else None
    running = _Running(threads)
    free: SimpleQueue[_Worker] = SimpleQueue()
    for device in devices:
        free.put(_Worker(device, running))

    def work(job: Job) -> Ended:
        worker = free.get()
        try:
            return worker.run(job)
        finally:
            free.put(worker)

    with ThreadPoolExecutor(len(devices)) as pool, running:
        waiting: dict[Future[Ended], Job] = {pool.submit(work, job): job for job in jobs}
        try:
            while waiting:
                done, _ = wait(waiting, EVERY_S, return_when=FIRST_COMPLETED)
                for future in done:
                    del waiting[future]
                    finished(future.result())
                if not done:
                    waiting_for(list(waiting.values()))
        except KeyboardInterrupt:
            for future in waiting:
                future.cancel()
            running.stop()
            raise


class _Running:
    """The processes that are running, so that all of them can be stopped."""

    def __init__(self, threads: int | None) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        """Workers end when nobody talks to them any more."""
        for process in self._processes:
            _close(process)

    def start(self) -> subprocess.Popen[str]:
        """A worker that waits for jobs."""
        environment = dict(os.environ)
        if self._threads is not None:
            environment.setdefault("OMP_NUM_THREADS", str(self._threads))
        with self._lock:
            if self._stopped:
                raise KeyboardInterrupt
            process = start(
                command([worker.__name__]),
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self._processes.add(process)
        return process

    def ended(self, process: subprocess.Popen[str]) -> None:
        """It is gone, or about to go."""
        with self._lock:
            self._processes.discard(process)
        _close(process)

    def stop(self) -> None:
        """Stop what is running, and start no more."""
        with self._lock:
            self._stopped = True
            processes = list(self._processes)
        stop(processes)


def _close(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        # what could not be said to a dead process does not matter
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
    process.wait()


class _Worker:
    """One job at a time on one device, in one process as long as that lives."""

    def __init__(self, device: str, running: _Running) -> None:
        self._device = device
        self._running = running
        self._process: subprocess.Popen[str] | None = None

    def run(self, job: Job) -> Ended:
        """Do a job; a process that died is replaced for the next one."""
        started = time.monotonic()
        words = job.words if self._device == "auto" else (*job.words, f"device={self._device}")
        if self._process is None:
            self._process = self._running.start()
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        answer = ""
        # a worker that is killed while it is told of a job says so by its exit code
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps({"words": words, "log": str(job.log)}) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        code = json.loads(answer)["code"] if answer else process.wait()
        if not answer or was_stopped(code):
            self._running.ended(process)
            self._process = None
        if was_stopped(code):
            raise KeyboardInterrupt
        # it can only have died
        failed = bool(code) or not answer
        error = last_words(job.log, code) if failed else None
        return Ended(job, time.monotonic() - started, error)


def run_on_cluster(
    jobs: Sequence[Job],
    address: str,
    cpus: float,
    gpus: float,
    finished: Finished,
    waiting_for: Waiting = lambda jobs: None,
) -> None:
    """Run the jobs as Ray tasks, as many at once as the cluster has room for; `finished` and
    `waiting_for` as of `run_here`.

    All nodes must see the same files at the same paths. A job whose node dies is started again.

    Raises:
        RayUnavailable: the cluster cannot be reached.
        KeyboardInterrupt: this process was stopped; the jobs were told to save first.
    """
    import ray
    from ray.exceptions import RayError

    from teacher_infer.workers.ray_cluster import RayCluster

    cluster = RayCluster(address, num_cpus=None, show_workers=False)
    try:
        task: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=3)(_on_node)
        waiting = {task.remote(job, str(Path.cwd()), sys.path): job for job in jobs}
        try:
            while waiting:
                ended_now, _ = ray.wait(list(waiting), num_returns=1, timeout=EVERY_S)
                if not ended_now:
                    waiting_for(list(waiting.values()))
                    continue
                (done,) = ended_now
                job = waiting.pop(done)
                try:
                    ended = ray.get(done)
                except RayError as error:
                    ended = Ended(job, 0.0, str(error).strip()[-600:])
                finished(ended)
        except KeyboardInterrupt:
            for reference in waiting:
                ray.cancel(reference)
            if waiting:
                ray.wait(list(waiting), num_returns=len(waiting), timeout=PATIENCE_S + 5)
            raise
    finally:
        cluster.leave()


def _on_node(job: Job, folder: str, path: list[str]) -> Ended:
    started = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        process = start(
            command(job.words), env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            # Ray interrupts Python, not the system's wait for a process
            while (code := process.poll()) is None:
                time.sleep(0.5)
        except KeyboardInterrupt:
            # the driver, when it is stopped, cancels its tasks
            stop([process])
            raise
    return Ended(job, time.monotonic() - started, last_words(job.log, code) if code else None)


def command(words: Sequence[str]) -> list[str]:
    """The command line of `python -m WORDS`."""
    return [sys.executable, "-W", "ignore", "-m", *words]


def last_words(log: Path, code: int) -> str:
    """The end of a log, and the code that its process ended with."""
    text = log.read_bytes()[-2000:].decode(errors="replace").strip() if log.exists() else ""
    said = " ".join(text.splitlines()[-3:])[-600:]
    return f"ended with {code}: {said} (all of it in {log})"
