"""The few collective operations that training needs, on one process or many started by torchrun."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from box_store.errors import TeachDetrError
from student_train.errors import PeerLost, RunError
from student_train.machine.interrupt import Stopped

T = TypeVar("T")
# the others wait while the first process compares a large split's detections with its annotations
_LONGEST_WAIT = timedelta(hours=2)
_LOOK_S = 0.001


@dataclass(frozen=True)
class World:
    """Which process this is, of how many; `local_rank` counts within one machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    is_own: bool = True
    """whether the process group was formed here, and so ends here"""
    words: Any = None
    """the group over which processes talk without their devices; None where the main one does"""

    @property
    def is_first(self) -> bool:
        """The process that prints and writes."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()

    def max(self, values: Tensor) -> Tensor:
        """Element-wise maximum over all processes."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values, dist.ReduceOp.MAX)
        return values

    def agree(self, obstacle: Stopped | TeachDetrError | None) -> None:
        """Go on together, or not at all; all must call. `obstacle` is why this process cannot.

        Whoever waits here for one that waits elsewhere hears signals meanwhile.

        Raises on all of them what keeps one from going on: `Stopped` before errors, those of lower
        ranks first.
        """
        for each in sorted(self._obstacles(obstacle), key=lambda it: not isinstance(it, Stopped)):
            raise each

    def _obstacles(self, mine: Stopped | TeachDetrError | None) -> list[Any]:
        if self.size == 1:
            return [] if mine is None else [mine]
        some = torch.tensor([mine is not None], dtype=torch.uint8)
        work = dist.all_reduce(some, dist.ReduceOp.MAX, group=self.words, async_op=True)
        assert work is not None
        # Python runs handlers of signals between two of its own instructions only
        while not work.is_completed():
            time.sleep(_LOOK_S)
        work.wait()
        if not some:
            return []
        everyone: list[Any] = [None] * self.size
        dist.all_gather_object(everyone, mine, group=self.words)
        return [each for each in everyone if each is not None]

    def share(self, values: Tensor) -> None:
        """Overwrite a tensor by that of the first process."""
        if self.size > 1:
            dist.broadcast(values, 0)

    def gather(self, rows: Sequence[Any]) -> list[Any]:
        """The rows of all processes, on all of them, in order of rank."""
        if self.size == 1:
            return list(rows)
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, list(rows))
        return [row for part in parts for row in part]

    def collect(self, rows: Sequence[Any]) -> list[Any]:
        """The rows of all processes, in order of rank, on the first; no rows on the others."""
        if self.size == 1:
            return list(rows)
        parts: list[Any] | None = [None] * self.size if self.is_first else None
        dist.gather_object(list(rows), parts)
        return [row for part in parts or () for row in part]

    def on_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, on all of them; all must call.

        Raises TeachDetrError on all of them where it does on the first.
        """
        if self.size == 1:
            return make()
        said: list[Any] = [None, None]
        if self.is_first:
            try:
                said[0] = make()
            except TeachDetrError as error:
                said[1] = error
        dist.broadcast_object_list(said, 0)
        made, error = said
        if error is not None:
            raise error
        return made

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work of all processes, which ends the process group unless a launcher formed it.

        Raises PeerLost where it fails for want of one of them.
        """
        try:
            with naming_lost_peers():
                yield
        finally:
            if self.size > 1 and self.is_own and dist.is_initialized():
                dist.destroy_process_group()


@contextmanager
def naming_lost_peers() -> Iterator[None]:
    """Raises PeerLost where an operation of several processes fails, for want of one of them."""
    try:
        yield
    except RuntimeError as error:
        # gloo has no class of its own
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise PeerLost(
            "another process of this run ended or cannot be reached any more; what it said itself, "
            "and the system's log, tell why"
        ) from error


def join_world(device_type: str) -> World:
    """The process group that a launcher has formed already, or the one that torchrun's environment
    variables describe, joined; one process without either.

    Raises:
        RunError: the variables are there but the group cannot be formed.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if dist.is_available() and dist.is_initialized():
        return _world(local_rank, is_own=False)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World()
    backend = "nccl" if device_type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=_LONGEST_WAIT)
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"cannot join the other training processes ({backend}): {error}; start them with "
            "`torchrun --nproc-per-node N -m student_train.cli train ...`"
        ) from None
    return _world(local_rank, is_own=True)


def _world(local_rank: int, is_own: bool) -> World:
    # tensors of the devices' own backend would have every step wait for the device once more
    words = None if "gloo" in dist.get_backend() else dist.new_group(backend="gloo")
    return World(dist.get_rank(), dist.get_world_size(), local_rank, is_own, words)
