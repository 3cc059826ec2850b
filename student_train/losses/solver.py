"""Many small assignment problems at once: SciPy on a pool of threads, the longest first.

SciPy's solver releases the interpreter's lock, so the threads run beside each other and beside the
thread that feeds the device.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Assignment = tuple[NDArray[np.int64], NDArray[np.int64]]

_MOST_THREADS = 16


class UnsolvableCosts(ValueError):
    """A cost is NaN or infinite; `index` is the problem's."""

    def __init__(self, index: int):
        super().__init__(f"the costs of problem {index} are not finite")
        self.index = index


def in_background(work: Callable[[], T]) -> "Future[T]":
    """Start `work` on the pool; its exceptions come out of `Future.result`."""
    return _pool(os.getpid()).submit(work)


def solve(costs: Sequence[np.ndarray]) -> list[Assignment]:
    """Minimal assignments of [boxes, queries] costs: pairs (box, query), min of both counts long.

    Where costs tie, any of the cheapest assignments may come out, always the same one.

    Raises UnsolvableCosts.
    """
    # of no use to a process that only detects, and 36 MiB
    from scipy.optimize import linear_sum_assignment

    found: list[Assignment | None] = [None] * len(costs)
    failed: list[int] = []

    def work(index: int) -> None:
        # what SciPy would convert to anyway, while holding the lock
        cost = np.ascontiguousarray(costs[index], np.float64)
        try:
            found[index] = linear_sum_assignment(cost)
        except ValueError:
            failed.append(index)

    # by the number of boxes: the time of a solution grows faster than with it
    order = sorted(range(len(costs)), key=lambda i: len(costs[i]), reverse=True)
    share(order, work, n_threads())
    if failed:
        raise UnsolvableCosts(min(failed))
    return [each for each in found if each is not None]


def share(tasks: Sequence[T], work: Callable[[T], None], threads: int) -> None:
    """Do all tasks, the first ones first, in this thread and others of the pool; may be called from
    a thread of the pool. Raises what a task raises, once all are done.
    """
    waiting = deque(tasks)
    left = threading.Semaphore(0)
    failed: list[BaseException] = []

    def some() -> None:
        while True:
            try:
                task = waiting.popleft()
            except IndexError:
                return
            try:
                work(task)
            except BaseException as error:
                failed.append(error)
            finally:
                left.release()

    for _ in range(min(threads, len(tasks)) - 1):
        in_background(some)
    some()
    # helpers that never got a thread have nothing left to do: only the tasks are waited for
    for _ in tasks:
        left.acquire()
    if failed:
        raise failed[0]


def n_threads() -> int:
    """Threads that this process may use: its share of the machine's cores, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(_MOST_THREADS, (cores or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    # by process: a forked child has none of its parent's threads
    return ThreadPoolExecutor(n_threads(), thread_name_prefix="matching")
