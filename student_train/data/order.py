"""Which images make which batch."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from student_train.data.coco import Key, sample_generator


class Order(Sampler[list[Key]]):
    """Which images make which batch on this rank, from the seed and the epoch alone.

    Training (`shuffle`): one permutation an epoch, cut into steps of parts x world x batch_size
    images, each part of which is shared among the ranks. The last step is filled up from the start
    of the permutation, so all ranks make the same number of steps and every image is seen. With the
    same number of images a step, any number of ranks and parts sees the same steps.

    groups: a number an image; the images of a step are then of one group (say, of like aspect
    ratio), as long as there are enough: the remainders of all groups make the last steps.

    Evaluation: every image exactly once, in the order of the file. Ranks take turns by batch, so
    any number of them makes the same batches, with the same padding.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        parts: int = 1,
        groups: NDArray[np.integer] | None = None,
    ):
        self.n, self.batch_size, self.shuffle, self.seed = n, batch_size, shuffle, seed
        self.rank, self.world, self.parts, self.groups = rank, world, parts, groups
        self.epoch, self.start = 0, 0

    @property
    def step_size(self) -> int:
        """Images of a training step, over all ranks and parts."""
        return self.batch_size * self.world * self.parts

    def batches(self) -> list[list[Key]]:
        """All batches of this rank in this epoch."""
        if not self.shuffle:
            size = self.batch_size
            cuts = [range(self.n)[start : start + size] for start in range(0, self.n, size)]
            mine = cuts[self.rank :: self.world]
            return [[Key(index, self.epoch) for index in cut] for cut in mine]
        order = self._permutation()
        filled = np.resize(order, len(self) * self.batch_size * self.world)
        mine = filled.reshape(-1, self.world, self.batch_size)[:, self.rank]
        return [
            [Key(index, self.epoch, number // self.parts) for index in batch]
            for number, batch in enumerate(mine.tolist())
        ]

    def _permutation(self) -> NDArray[np.int64]:
        generator = sample_generator(self.seed, self.epoch, -1)
        order = torch.randperm(self.n, generator=generator).numpy()
        if self.groups is None:
            return order
        return together(order, np.asarray(self.groups)[order], self.step_size)

    def __len__(self) -> int:
        if self.shuffle:
            return steps_per_epoch(self.n, self.step_size) * self.parts
        n_batches = -(-self.n // self.batch_size)
        return len(range(self.rank, n_batches, self.world))

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches()[self.start :])


def steps_per_epoch(n_images: int, step_size: int) -> int:
    """Steps in which every image is seen; the last is filled up."""
    return -(-n_images // step_size)


def together(order: NDArray[np.int64], groups: NDArray[np.integer], size: int) -> NDArray[np.int64]:
    """`order` rearranged so that every `size` images in turn are of one group; remainders last.

    groups: of `order`'s entries. A run of `size` stands where its last image stood, so that the
    groups stay mixed.
    """
    rank = np.empty(len(order), np.int64)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        whole = len(members) // size * size
        ends = members[:whole].reshape(-1, size)[:, -1:]
        rank[members[:whole]] = np.broadcast_to(ends, (len(ends), size)).ravel()
        # behind all others, group by group
        rank[members[whole:]] = len(order) + int(group)
    return order[np.argsort(rank, kind="stable")]


def aspect_groups(
    widths: NDArray[np.integer], heights: NDArray[np.integer], n_groups: int
) -> NDArray[np.int64] | None:
    """A group an image by the logarithm of width / height, all of about the same spread; None for
    one group. Two groups are upright and lying images.
    """
    if n_groups <= 1:
        return None
    ratio = np.log2(np.asarray(widths) / np.asarray(heights)).clip(-1, 1)
    return np.minimum(((ratio + 1) / 2 * n_groups).astype(np.int64), n_groups - 1)
