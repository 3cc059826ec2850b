"""Batches from processes that live from epoch to epoch, and what went wrong on the way."""

import logging
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from box_store.errors import DataError, TeachDetrError
from box_store.places.locations import RemotePath
from student_train.data.batch import Batch, collate
from student_train.data.coco import CocoDetection, Key, Loaded
from student_train.data.images import ImageProblem
from student_train.data.order import Order, aspect_groups
from student_train.errors import LoaderDied
from student_train.machine.shared_memory import SHARED_MEMORY, free_shared_memory

logger = logging.getLogger(__name__)


class _Guarded(Dataset[Loaded | TeachDetrError]):
    """Hands errors on as values: raised in a loader process, they arrive wrapped in a trace."""

    def __init__(self, dataset: CocoDetection):
        self.dataset = dataset

    def __getitem__(self, key: Key) -> Loaded | TeachDetrError:
        try:
            return self.dataset[key]
        except TeachDetrError as error:
            return error


def _collate_loaded(
    items: Sequence[Loaded | TeachDetrError], pad_to: int
) -> Batch | TeachDetrError:
    for item in items:
        if isinstance(item, TeachDetrError):
            return item
    items = [item for item in items if isinstance(item, Loaded)]
    samples = [item.sample for item in items if item.sample is not None]
    problems = [problem for item in items for problem in item.problems]
    return _in_shared_memory(collate(samples, problems, pad_to))


# a batch for which there is no room by then has none
_PATIENCE = 20.0


def _in_shared_memory(batch: Batch) -> Batch | DataError:
    """A batch that has room on its way out of a loader process. PyTorch's own failure would be
    lost in a thread of that process, and the trainer would wait for ever.
    """
    worker = get_worker_info()
    if worker is None:
        return batch
    # the others may be writing too
    needed = worker.num_workers * sum(each.nbytes for each in batch.tensors)
    end = time.monotonic() + _PATIENCE
    while (room := free_shared_memory()) is not None and room.free < needed:
        if time.monotonic() > end:
            return DataError(
                f"shared memory ({SHARED_MEMORY}, {room.total / 2**20:.4g} MiB) is full: "
                f"{worker.num_workers} processes that load images need {needed / 2**20:.4g} MiB "
                "at a time. Make it larger (docker: --shm-size), or give data.workers=0"
            )
        time.sleep(0.1)
    return batch


def _start_method(dataset: CocoDetection) -> BaseContext | None:
    """How loader processes start; None for the platform's way."""
    if not isinstance(dataset.root, RemotePath) or "forkserver" not in get_all_start_methods():
        return None
    # the client of a server has threads and locks, and a fork of them waits for ever
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


class Loader:
    """Batches of a data set. Its processes live from epoch to epoch.

    `problems` collects every image that could not be used, by image id; each is logged once.
    """

    def __init__(self, dataset: CocoDetection, order: Order, workers: int = 0, pad_to: int = 1):
        self.dataset = dataset
        self.order = order
        self.problems: dict[int, ImageProblem] = {}
        self._loader = DataLoader(
            _Guarded(dataset),
            batch_sampler=order,
            num_workers=workers,
            collate_fn=partial(_collate_loaded, pad_to=pad_to),
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            multiprocessing_context=_start_method(dataset) if workers else None,
        )

    def __len__(self) -> int:
        """Steps of an epoch on this rank."""
        return len(self.order)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from step `start` on, as if the earlier ones had been loaded."""
        self.order.epoch, self.order.start = epoch, start
        for batch in self._loaded():
            if isinstance(batch, TeachDetrError):
                raise batch
            for problem in batch.problems:
                if problem.image_id not in self.problems:
                    self.problems[problem.image_id] = problem
                    logger.warning("image %d: %s", problem.image_id, problem.message)
            if len(batch):
                yield batch

    def _loaded(self) -> Iterator[Batch | TeachDetrError]:
        """Raises LoaderDied, and only where the next batch is waited for."""
        # PyTorch raises from a handler of SIGCHLD otherwise: in the middle of a step, or of saving
        in_main = threading.current_thread() is threading.main_thread()
        former = signal.getsignal(signal.SIGCHLD) if in_main else None
        batches = iter(self._loader)
        if in_main:
            signal.signal(signal.SIGCHLD, former)
        while True:
            try:
                batch = next(batches, None)
            except (RuntimeError, OSError, EOFError) as error:
                # while it hands pixels over, its end is seen first as a connection that breaks
                if "DataLoader worker" not in str(error) and not self._lost_one():
                    raise
                raise LoaderDied(
                    "a process that loads images died. Most often memory ran out and the system "
                    "killed it: fewer data.workers need less"
                ) from None
            if batch is None:
                return
            yield batch

    def kill(self) -> None:
        """End the processes at once, whatever they wait for; nothing can be loaded any more."""
        for worker in self._processes():
            worker.kill()

    def _processes(self) -> Sequence[BaseProcess]:
        return getattr(self._loader._iterator, "_workers", ())

    def _lost_one(self) -> bool:
        """Whether a process that loads images has ended, or does so within a second."""
        return bool(wait([worker.sentinel for worker in self._processes()], timeout=1.0))

    def __iter__(self) -> Iterator[Batch]:
        """Epoch 0 from its start."""
        return self.epoch(0)


def make_loader(
    dataset: CocoDetection,
    batch_size: int,
    *,
    shuffle: bool,
    seed: int = 0,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    parts: int = 1,
    aspect_ratios: int = 1,
    pad_to: int = 1,
) -> Loader:
    """Batches of `batch_size` images on this rank; see `Order` for who gets what.

    aspect_ratios: groups of like aspect ratio that training steps are made from; 1 mixes all.
    pad_to: heights and widths of batches are multiples of this many pixels.
    """
    groups = aspect_groups(dataset.widths, dataset.heights, aspect_ratios) if shuffle else None
    order = Order(len(dataset), batch_size, shuffle, seed, rank, world, parts, groups)
    return Loader(dataset, order, workers, pad_to)
