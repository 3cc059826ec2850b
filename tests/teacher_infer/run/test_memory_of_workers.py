"""Workers that die of large batches get smaller ones."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from teacher_infer.commands.report import print_run, run_row
from teacher_infer.data.images import ImageTask
from teacher_infer.workers.pool import Cause, Died, Event

from .conftest import FakePool


@dataclass
class SmallMemoryPool(FakePool):
    """Workers that die of batches of more than two images."""

    cause: Cause = Cause.MEMORY

    def submit(self, worker: int, tasks: Sequence[ImageTask], class_map: Any, careful: bool):
        super().submit(worker, tasks, class_map, careful)
        if self._alive[worker].batch_size > 2 and not careful:
            self._steps[worker] = deque([[]])

    def _step(self, worker: int, steps: deque[list[ImageTask]]) -> Event:
        if steps and not steps[0]:
            self.stop(worker)
            return Died(worker, "the machine ran out of memory", self.cause)
        return super()._step(worker, steps)


@pytest.mark.parametrize("cause", [Cause.MEMORY, Cause.CRASH])
def test_workers_that_die_of_large_batches_get_smaller_ones(bench, cause):
    pool, job = SmallMemoryPool(cause=cause), bench.job(keys=",batch_size=4", unit_size=20)
    said = bench.run(pool, job)
    assert bench.statuses() == dict.fromkeys(range(1, 21), "ok")
    assert job.batch_size == 2
    assert "tiny: batches of 2 from now on" in said
    row = run_row(bench.store, job)
    assert (row["batch_size"], row["batch_size_asked"]) == (2, 4)
    assert row["workers_lost"] == {cause.value: job.lost[cause]}
    with bench.console.capture() as capture:
        print_run(bench.console, bench.store, [row])
    assert "tiny: batches of 2: 4 were more than memory holds" in capture.get()


def test_a_worker_whose_gpu_was_full_hands_its_smaller_batch_to_its_successors(bench):
    pool, job = FakePool(reduced=3, deadly={13}), bench.job(keys=",batch_size=6")
    said = bench.run(pool, job)
    assert job.batch_size == 3
    assert "tiny: batches of 3 from now on: more do not fit into memory" in said
    assert pool.batch_sizes[0] == 6
    assert set(pool.batch_sizes[1:]) == {3}
