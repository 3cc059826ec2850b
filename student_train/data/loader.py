"""Samples to batches: padding, order, processes, and what went wrong on the way."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from box_store.errors import TeachDetrError
from student_train.data.coco import CocoDetection, Key, Loaded, Sample, sample_generator
from student_train.data.images import ImageProblem
from student_train.models.targets import Targets

# ImageNet statistics of RGB in 0..1, what all backbones were trained with
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

logger = logging.getLogger(__name__)


@dataclass
class Batch:
    """B images of one step.

    Between processes the images are uint8, a quarter of the bytes; `to` makes them what a student
    takes: float32, normalised, zero in the padding.
    """

    images: Tensor
    """[B, 3, H, W], padded at the right and the bottom"""
    mask: Tensor
    """bool [B, H, W], True = padding"""
    truth: list[Targets]
    teachers: dict[str, list[Targets | None]]
    """by teacher, per image; None = that teacher never saw the image"""
    image_ids: list[int]
    original_sizes: Tensor
    """LongTensor [B, 2], (height, width) of the files, for boxes in their pixels"""
    problems: tuple[ImageProblem, ...] = field(default=())
    """images that could not be used while this batch was made"""

    def __len__(self) -> int:
        return len(self.image_ids)

    def to(self, device: torch.device | str) -> Self:
        """On a device, images normalised there. Doing it twice changes nothing."""
        device = torch.device(device)
        mask = self.mask.to(device, non_blocking=True)
        images = self.images.to(device, non_blocking=True)
        if images.dtype == torch.uint8:
            images = normalise(images, mask)
        return replace(
            self,
            images=images,
            mask=mask,
            truth=[each.to(device, non_blocking=True) for each in self.truth],
            teachers={
                name: [None if t is None else t.to(device, non_blocking=True) for t in boxes]
                for name, boxes in self.teachers.items()
            },
            original_sizes=self.original_sizes.to(device, non_blocking=True),
        )

    def pin_memory(self) -> Self:
        """In page-locked memory, called by torch's loader where a GPU is there."""
        return replace(
            self,
            images=self.images.pin_memory(),
            mask=self.mask.pin_memory(),
            truth=[each.pin_memory() for each in self.truth],
            teachers={
                name: [None if t is None else t.pin_memory() for t in boxes]
                for name, boxes in self.teachers.items()
            },
            original_sizes=self.original_sizes.pin_memory(),
        )


def normalise(images: Tensor, mask: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] to float32 with ImageNet's mean and deviation; padding becomes 0."""
    mean = torch.tensor(MEAN, device=images.device).view(3, 1, 1) * 255
    std = torch.tensor(STD, device=images.device).view(3, 1, 1) * 255
    return ((images.float() - mean) / std).masked_fill(mask[:, None], 0.0)


def collate(samples: Sequence[Sample], problems: Sequence[ImageProblem] = ()) -> Batch:
    """Pad images to the largest height and width of the batch."""
    height = max((sample.image.shape[1] for sample in samples), default=0)
    width = max((sample.image.shape[2] for sample in samples), default=0)
    images = torch.zeros(len(samples), 3, height, width, dtype=torch.uint8)
    mask = torch.ones(len(samples), height, width, dtype=torch.bool)
    for row, sample in enumerate(samples):
        _, h, w = sample.image.shape
        images[row, :, :h, :w] = sample.image
        mask[row, :h, :w] = False
    teachers = samples[0].teachers if samples else ()
    return Batch(
        images,
        mask,
        [sample.truth for sample in samples],
        {name: [sample.teachers[name] for sample in samples] for name in teachers},
        [sample.image_id for sample in samples],
        torch.tensor([sample.original_size for sample in samples]).view(-1, 2),
        tuple(problems),
    )


class _Guarded(Dataset[Loaded | TeachDetrError]):
    """Hands errors on as values: raised in a loader process, they arrive wrapped in a trace."""

    def __init__(self, dataset: CocoDetection):
        self.dataset = dataset

    def __getitem__(self, key: Key) -> Loaded | TeachDetrError:
        try:
            return self.dataset[key]
        except TeachDetrError as error:
            return error


def _collate_loaded(items: Sequence[Loaded | TeachDetrError]) -> Batch | TeachDetrError:
    for item in items:
        if isinstance(item, TeachDetrError):
            return item
    items = [item for item in items if isinstance(item, Loaded)]
    samples = [item.sample for item in items if item.sample is not None]
    return collate(samples, [problem for item in items for problem in item.problems])


class Order(Sampler[list[Key]]):
    """Which images make which batch on this rank, from the seed and the epoch alone.

    Training (`shuffle`): one permutation an epoch, cut into global batches of world x batch_size,
    of which each rank takes its share. The last one is filled up from the start of the permutation,
    so all ranks make the same number of steps and every image is seen. With the same global batch
    size, any number of ranks sees the same global batches.

    Evaluation: every image exactly once, in the order of the file, ranks taking turns.
    """

    def __init__(
        self, n: int, batch_size: int, shuffle: bool, seed: int = 0, rank: int = 0, world: int = 1
    ):
        self.n, self.batch_size, self.shuffle, self.seed = n, batch_size, shuffle, seed
        self.rank, self.world = rank, world
        self.epoch, self.start = 0, 0

    def batches(self) -> list[list[Key]]:
        """All batches of this rank in this epoch."""
        if not self.shuffle:
            mine = range(self.rank, self.n, self.world)
            size = self.batch_size
            cuts = [mine[start : start + size] for start in range(0, len(mine), size)]
            return [[Key(index, self.epoch) for index in cut] for cut in cuts]
        generator = sample_generator(self.seed, self.epoch, -1)
        order = torch.randperm(self.n, generator=generator).tolist()
        whole = self.batch_size * self.world
        first = self.rank * self.batch_size
        return [
            [Key(order[i % self.n], self.epoch) for i in range(at, at + self.batch_size)]
            for at in range(first, first + len(self) * whole, whole)
        ]

    def __len__(self) -> int:
        if self.shuffle:
            return -(-self.n // (self.batch_size * self.world))
        return -(-len(range(self.rank, self.n, self.world)) // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches()[self.start :])


class Loader:
    """Batches of a data set. Its processes live from epoch to epoch.

    `problems` collects every image that could not be used, by image id; each is logged once.
    """

    def __init__(self, dataset: CocoDetection, order: Order, workers: int = 0):
        self.dataset = dataset
        self.order = order
        self.problems: dict[int, ImageProblem] = {}
        self._loader = DataLoader(
            _Guarded(dataset),
            batch_sampler=order,
            num_workers=workers,
            collate_fn=_collate_loaded,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
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
) -> Loader:
    """Batches of `batch_size` images on this rank; see `Order` for who gets what."""
    return Loader(dataset, Order(len(dataset), batch_size, shuffle, seed, rank, world), workers)
