"""One step's images and boxes: few tensors between processes, few copies to the device.

A loader process hands four tensors over, whatever the number of images and teachers: pixels as
bytes, the sizes of the images (padding follows from them), one row for every box of every source,
and the sizes of the files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from student_train.data.coco import Sample
from student_train.data.images import ImageProblem
from student_train.models.pixels import Pixels
from student_train.models.targets import Targets


@dataclass(frozen=True)
class BoxSets:
    """The boxes of B images by source, one source after the other, in one tensor."""

    sources: tuple[str, ...]
    """names of the teachers; ground truth comes before them"""
    counts: tuple[tuple[int | None, ...], ...]
    """per source and image, the number of boxes; None = that source never saw the image, or, of the
    ground truth, nobody labelled it"""
    had_boxes: tuple[tuple[bool, ...], ...]
    """per source and image: see `Targets`"""
    rows: Tensor
    """float32 [N, 6]: label, box, score; a float32 is exact for labels below 2^24"""

    @classmethod
    def pack(
        cls, truth: Sequence[Targets], teachers: Mapping[str, Sequence[Targets | None]]
    ) -> Self:
        """From lists of targets on the CPU."""
        labelled = [each if each.known else None for each in truth]
        lists: list[Sequence[Targets | None]] = [labelled, *teachers.values()]
        known = [each for targets in lists for each in targets if each is not None]
        labels = torch.cat([torch.zeros(0), *(each.labels for each in known)])
        boxes = torch.cat([torch.zeros(0, 4), *(each.boxes for each in known)])
        scores = torch.cat([torch.zeros(0), *(each.scores for each in known)])
        return cls(
            tuple(teachers),
            tuple(tuple(None if t is None else len(t) for t in each) for each in lists),
            tuple(tuple(t is None or t.had_boxes for t in each) for each in lists),
            torch.cat([labels[:, None], boxes, scores[:, None]], 1),
        )

    def unpack(self) -> tuple[list[Targets], dict[str, list[Targets | None]]]:
        """Ground truth, and teachers by name: views of the rows."""
        sizes = [count for counts in self.counts for count in counts if count is not None]
        labels = self.rows[:, 0].long().split(sizes)
        boxes, scores = self.rows[:, 1:5].split(sizes), self.rows[:, 5].split(sizes)
        parts = iter(zip(labels, boxes, scores, strict=True))
        truth, *others = [
            [
                None if count is None else Targets(*next(parts), had_boxes=had)
                for count, had in zip(counts, had_boxes, strict=True)
            ]
            for counts, had_boxes in zip(self.counts, self.had_boxes, strict=True)
        ]
        known = [Targets.unknown(self.rows) if each is None else each for each in truth]
        return known, dict(zip(self.sources, others, strict=True))


@dataclass
class Batch:
    """B images of one step.

    Between processes the images are uint8, a quarter of the bytes; `to` makes them what a student
    takes: float32, normalised, zero in the padding.
    """

    images: Tensor
    """[B, 3, H, W], padded at the right and the bottom"""
    sizes: Tensor
    """LongTensor [B, 2], (height, width) of each image without padding"""
    boxes: BoxSets
    image_ids: list[int]
    original_sizes: Tensor
    """LongTensor [B, 2], (height, width) of the files, for boxes in their pixels"""
    problems: tuple[ImageProblem, ...] = field(default=())
    """images that could not be used while this batch was made"""
    pixels: Pixels | None = None
    """how the images were scaled; none as long as they are bytes"""

    def __len__(self) -> int:
        return len(self.image_ids)

    @cached_property
    def mask(self) -> Tensor:
        """Bool [B, H, W], True = padding."""
        height, width = self.images.shape[-2:]
        down = torch.arange(height, device=self.sizes.device)[:, None]
        right = torch.arange(width, device=self.sizes.device)
        return (down >= self.sizes[:, :1, None]) | (right >= self.sizes[:, 1:, None])

    @cached_property
    def _targets(self) -> tuple[list[Targets], dict[str, list[Targets | None]]]:
        return self.boxes.unpack()

    @property
    def truth(self) -> list[Targets]:
        """Ground truth by image; `Targets.known` is False of one that nobody labelled."""
        return self._targets[0]

    @property
    def teachers(self) -> dict[str, list[Targets | None]]:
        """By teacher, per image; None = that teacher never saw the image."""
        return self._targets[1]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that moves between processes and devices."""
        return self.images, self.sizes, self.boxes.rows, self.original_sizes

    def copied(self, device: torch.device | str) -> Self:
        """On a device, the bytes as they are. The host does not wait if they are pinned."""
        return self._with(*(each.to(device, non_blocking=True) for each in self.tensors))

    def to(self, device: torch.device | str, pixels: Pixels) -> Self:
        """On a device, images scaled there as a student wants them, or scaled anew."""
        moved = self.copied(device)
        moved.images, moved.pixels = moved.images_for(pixels), pixels
        return moved

    def images_for(self, pixels: Pixels) -> Tensor:
        """The images as a student with such pixels wants them."""
        if self.pixels is None:
            return pixels.scaled(self.images, self.mask)
        return self.pixels.rescaled(self.images, self.mask, pixels)

    def remade(self, images: Tensor, boxes: BoxSets) -> Self:
        """Other pixels of the same sizes, and other boxes."""
        return replace(self, images=images, boxes=boxes)

    def pin_memory(self) -> Self:
        """In page-locked memory, called by torch's loader where a GPU is there."""
        return self._with(*(each.pin_memory() for each in self.tensors))

    def _with(self, images: Tensor, sizes: Tensor, rows: Tensor, original_sizes: Tensor) -> Self:
        boxes = replace(self.boxes, rows=rows)
        return replace(self, images=images, sizes=sizes, boxes=boxes, original_sizes=original_sizes)


def collate(
    samples: Sequence[Sample], problems: Sequence[ImageProblem] = (), pad_to: int = 1
) -> Batch:
    """Pad images to the largest height and width of the batch, rounded up to multiples of pad_to
    pixels.
    """
    sizes = [sample.image.shape[1:] for sample in samples]
    height, width = (
        -(-max((size[axis] for size in sizes), default=0) // pad_to) * pad_to for axis in (0, 1)
    )
    images = torch.zeros(len(samples), 3, height, width, dtype=torch.uint8)
    for row, sample in enumerate(samples):
        _, h, w = sample.image.shape
        images[row, :, :h, :w] = sample.image
    teachers = samples[0].teachers if samples else ()
    return Batch(
        images,
        torch.tensor([tuple(size) for size in sizes], dtype=torch.long).view(-1, 2),
        BoxSets.pack(
            [sample.truth for sample in samples],
            {name: [sample.teachers[name] for sample in samples] for name in teachers},
        ),
        [sample.image_id for sample in samples],
        torch.tensor([sample.original_size for sample in samples], dtype=torch.long).view(-1, 2),
        tuple(problems),
    )
