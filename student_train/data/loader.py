"""Batches from processes that live from epoch to epoch, and what went wrong on the way."""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext

import torch
from torch.utils.data import DataLoader, Dataset

from box_store.errors import TeachDetrError
from box_store.places.locations import RemotePath
from student_train.data.batch import Batch, collate
from student_train.data.coco import CocoDetection, Key, Loaded
from student_train.data.images import ImageProblem
from student_train.data.order import Order, aspect_groups

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
    return collate(samples, problems, pad_to)


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
        for batch in self._loader:
            if isinstance(batch, TeachDetrError):
                raise batch
            for problem in batch.problems:
                if problem.image_id not in self.problems:
                    self.problems[problem.image_id] = problem
                    logger.warning("image %d: %s", problem.image_id, problem.message)
            if len(batch):
                yield batch

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
