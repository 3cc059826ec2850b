"""The processes that a run has started, for the benchmarks that look at them."""

import os

from box_store.measure.processes import command_line, descendants

# how worker processes call themselves: Ray's actors, and children without Ray
_WORKERS = ("ray::Worker", "teacher_infer.workers.child")


def started_processes() -> tuple[list[int], list[int]]:
    """Those that hold a teacher, and the rest: Ray's own."""
    workers: list[int] = []
    others: list[int] = []
    for pid in descendants(os.getpid()):
        is_worker = any(word in command_line(pid) for word in _WORKERS)
        (workers if is_worker else others).append(pid)
    return workers, others
