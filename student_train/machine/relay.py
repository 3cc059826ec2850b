"""A signal that one process of a run got, told to all of them."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import torch.distributed as dist

from student_train.machine.distributed import World
from student_train.machine.interrupt import StopRequest

_LOOK_S = 0.25
# a process may train twice; every process counts alike
_RUNS = count()


@contextmanager
def relaying(stop: StopRequest, world: World) -> Iterator[None]:
    """Within the block the signal that `stop` noted in one process comes to every other as well.

    Processes that wait for each other could not leave otherwise: one of them may wait for data that
    never come, and has heard of nothing.
    """
    if world.size == 1:
        yield
        return
    ended = threading.Event()
    watcher = threading.Thread(
        target=_watch, args=(stop, f"teach-detr/stop/{next(_RUNS)}", ended), daemon=True
    )
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _watch(stop: StopRequest, key: str, ended: threading.Event) -> None:
    store = dist.distributed_c10d._get_default_store()
    while not ended.wait(_LOOK_S):
        try:
            if stop.signal_number:
                store.set(key, str(stop.signal_number))
                return
            if store.check([key]):
                os.kill(os.getpid(), int(store.get(key)))
                return
        except RuntimeError:
            # whoever keeps the table is gone, which the next operation of all will tell
            return
