"""COCO-format images with ground truth and what teachers saw in them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from box_store.boxes import Boxes
from box_store.categories import ClassSpace
from box_store.coco.annotations import CocoData
from box_store.errors import DataError
from box_store.jpeg import largest_divisor
from box_store.pixels import SIZE_MISMATCH, find_image
from box_store.places.locations import Location, as_typed
from box_store.selection.selecting import Selection
from student_train.config import AugmentConfig
from student_train.data.images import ImageError, ImageProblem, read_image
from student_train.data.mosaic import companions, compose
from student_train.data.tiles import random_tile
from student_train.data.transforms import Scene, Transform
from student_train.models.geometry import to_centres
from student_train.models.targets import Targets


@dataclass
class Sample:
    """One augmented image with its boxes."""

    image: torch.Tensor
    """uint8 [3, H, W]"""
    truth: Targets
    teachers: dict[str, Targets | None]
    """by teacher; None = that teacher never saw the image"""
    image_id: int
    original_size: tuple[int, int]
    """(height, width) of the file, in pixels; rounded up to the divisor of a scaled decoding"""


@dataclass
class Loaded:
    """What the data set hands to the loader: a sample, and the images that failed on the way."""

    sample: Sample | None
    problems: tuple[ImageProblem, ...] = ()


@dataclass(frozen=True)
class Key:
    """Which image, at what time: augmentation depends on both and on nothing else."""

    index: int
    epoch: int = 0
    step: int = 0
    """of the epoch: for what all images of a step share"""


class CocoDetection(Dataset[Loaded]):
    """Images of a folder with the boxes of an annotation file and, optionally, of teachers.

    Crowd annotations are no targets; of an image that nobody labelled the ground truth is not
    known, and what teachers saw stays. An image that cannot be used (missing, damaged, of another
    size than annotated, a name that leaves the folder) is reported with the sample; with `replace`
    the next usable image of the file takes its place, so that batches keep their size, and
    otherwise there is no sample.

    All annotations lie in the few arrays of a table, so that loader processes share their memory.
    """

    def __init__(
        self,
        root: Location,
        coco: CocoData,
        class_space: ClassSpace,
        transform: Transform,
        *,
        selection: Selection | None = None,
        teachers: Sequence[str] | None = None,
        seed: int = 0,
        limit: int | None = None,
        replace: bool = True,
        augment: AugmentConfig | None = None,
        scaled_decode: bool = False,
    ):
        """teachers: of the selection, all by default. limit: use the first this many images.
        augment: what is done before `transform`: tiles, and mosaics with other images.
        scaled_decode: read photos no larger than `transform` needs them; of tiles all is needed.

        Raises DataError if the folder is missing or the file lists no image.
        """
        self.root = as_typed(root)
        if not self.root.is_dir():
            raise DataError(f"no image folder at {self.root}; the annotations are {coco.path}")
        self._table = coco.table
        self._n = len(coco.table) if limit is None else min(limit, len(coco.table))
        if not self._n:
            raise DataError(f"{coco.path} lists no images: there is nothing to load")
        self.transform = transform
        self.class_space = class_space
        self.selection = selection
        known = selection.teachers if selection is not None else ()
        self.teachers = tuple(known if teachers is None else teachers)
        self.seed = seed
        self.replace = replace
        self._augment = augment
        tiled = augment is not None and augment.tile is not None
        self.scaled_decode = scaled_decode and not tiled

    def __len__(self) -> int:
        return self._n

    @property
    def image_ids(self) -> NDArray[np.int64]:
        """[N], in the order of the file."""
        return self._table.image_ids[: self._n]

    @property
    def widths(self) -> NDArray[np.int32]:
        """[N], of the files, in pixels."""
        return self._table.widths[: self._n]

    @property
    def heights(self) -> NDArray[np.int32]:
        """[N], of the files, in pixels."""
        return self._table.heights[: self._n]

    @property
    def n_boxes(self) -> int:
        """Ground truth boxes, crowds not counted."""
        return len(self.objects()[0])

    @property
    def n_unlabelled(self) -> int:
        """Images that nobody labelled: teachers alone teach there."""
        return int(self._table.unlabelled[: self._n].sum())

    @property
    def objects_per_image(self) -> NDArray[np.int64]:
        """[N], crowds not counted."""
        return np.bincount(self.objects()[0], minlength=self._n)

    def objects(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Of every object that is no crowd, in images that are labelled: its image's index [K], and
        its box [K, 4], x, y, width, height in pixels of the file.
        """
        offsets = self._table.offsets[: self._n + 1]
        images = np.repeat(np.arange(self._n), np.diff(offsets))
        keep = ~self._table.iscrowd[: offsets[-1]] & ~self._table.unlabelled[images]
        return images[keep], self._table.boxes_xywh[: offsets[-1]][keep]

    def __getitem__(self, key: Key | int) -> Loaded:
        """The sample of an index (in epoch 0) or of a Key.

        Raises DataError if no image of the whole data set can be used.
        """
        key = key if isinstance(key, Key) else Key(key)
        problems: list[ImageProblem] = []
        for step in range(len(self) if self.replace else 1):
            index = (key.index + step) % len(self)
            try:
                return Loaded(self._load(Key(index, key.epoch, key.step)), tuple(problems))
            except ImageError as error:
                problems.append(ImageProblem(int(self.image_ids[index]), str(error)))
        if self.replace:
            raise DataError(
                f"none of the {len(self)} images in {self.root} can be used; "
                f"the first problem: {problems[0].message}"
            )
        return Loaded(None, tuple(problems))

    def file_name(self, index: int) -> str:
        """As the annotation file has it."""
        return self._table.file_name(index)

    def describe(self, image_id: int) -> str:
        """An image as people look for it: file name and id."""
        index = self._table.index_of(image_id)
        return f"image {image_id}" if index is None else f"{self.file_name(index)} (id {image_id})"

    def _load(self, key: Key) -> Sample:
        image_id = int(self._table.image_ids[key.index])
        draw = sample_generator(self.seed, key.epoch, image_id)
        others = companions(self._augment, len(self), key.epoch, draw) if self._augment else []
        read = [self._read(index) for index in (key.index, *others)]
        had_boxes = [any(map(bool, each)) for each in zip(*(part[1] for part in read), strict=True)]
        parts = [self._tiled(image, sources, draw) for image, sources, _ in read]
        image, sources = parts[0]
        if self._augment and others:
            image, sources = compose(parts, self._augment.mosaic_side, draw)
        known = [source for source in sources if source is not None]

        # all sources go through the augmentation as one list of boxes, and are told apart after it
        boxes = torch.from_numpy(
            np.concatenate([np.zeros((0, 4), np.float32), *(s.boxes_xyxy for s in known)])
        )
        scene = self.transform(
            replace(Scene.start(image, boxes), is_mosaic=bool(others)),
            draw,
            sample_generator(self.seed, key.epoch, -2 - key.step),
            key.epoch,
        )
        targets: list[Targets | None] = []
        start = 0
        for source, had in zip(sources, had_boxes, strict=True):
            if source is None:
                targets.append(None)
                continue
            targets.append(self._targets(source, scene, start, had))
            start += len(source)
        truth, *teachers = targets
        truth = Targets.unknown(boxes) if truth is None else truth
        by_name = dict(zip(self.teachers, teachers, strict=True))
        return Sample(scene.image, truth, by_name, image_id, read[0][2])

    def _tiled(
        self, image: torch.Tensor, sources: list[Boxes | None], draw: torch.Generator
    ) -> tuple[torch.Tensor, list[Boxes | None]]:
        """What is taken of an image as stored: all of it, or a random tile."""
        if self._augment is None or self._augment.tile is None:
            return image, sources
        return random_tile(image, sources, self._augment.tile, draw)

    def _read(self, index: int) -> tuple[torch.Tensor, list[Boxes | None], tuple[int, int]]:
        """An image, the boxes of all sources on it, and its (height, width) in the frame of the
        annotations: all as stored, or divided where that was asked for.
        """
        image_id = int(self._table.image_ids[index])
        size = (int(self._table.heights[index]), int(self._table.widths[index]))
        path = find_image(self.root, self.file_name(index))
        divisor = largest_divisor(size, self.transform.needs(size)) if self.scaled_decode else 1
        image = read_image(path, (size[1], size[0]), divisor=divisor)
        sources = [self._truth(index, size), *self._teacher_boxes(image_id, size)]
        height, width = image.shape[-2:]
        if (height, width) == size:
            return image, sources, size
        # sides are rounded up: the last row and column may lie outside the photo in part
        framed = [
            None
            if each is None
            else replace(each, boxes_xyxy=each.boxes_xyxy / divisor, width=width, height=height)
            for each in sources
        ]
        return image, framed, (height * divisor, width * divisor)

    def _truth(self, index: int, size: tuple[int, int]) -> Boxes | None:
        table, rows = self._table, self._table.rows(index)
        if table.unlabelled[index]:
            return None
        keep = ~table.iscrowd[rows]
        corners = table.boxes_xywh[rows][keep]
        corners[:, 2:] += corners[:, :2]
        ids = table.category_ids[rows][keep]
        scores = np.ones(len(ids), np.float32)
        return Boxes(corners, scores, ids, width=size[1], height=size[0])

    def _teacher_boxes(self, image_id: int, size: tuple[int, int]) -> list[Boxes | None]:
        """In the order of `teachers`."""
        if self.selection is None:
            return [None for _ in self.teachers]
        found = [self.selection.boxes(name, image_id) for name in self.teachers]
        for name, boxes in zip(self.teachers, found, strict=True):
            if boxes is not None and (boxes.height, boxes.width) != size:
                raise ImageError(
                    SIZE_MISMATCH,
                    f"teacher {name!r} saw image {image_id} at {boxes.width} x {boxes.height} px, "
                    f"the annotations say {size[1]} x {size[0]}: let it label these images again",
                )
        return found

    def _targets(self, source: Boxes, scene: Scene, start: int, had_boxes: bool) -> Targets:
        """What is left of a source whose boxes began at row `start` of the scene."""
        mine = (scene.rows >= start) & (scene.rows < start + len(source))
        rows = scene.rows[mine].numpy() - start
        height, width = scene.size
        return Targets(
            torch.from_numpy(self.class_space.to_index(source.class_ids[rows])),
            to_centres(scene.boxes_xyxy[mine]) / torch.tensor([width, height, width, height]),
            torch.from_numpy(source.scores[rows]),
            had_boxes=had_boxes,
        )


def sample_generator(seed: int, epoch: int, image_id: int) -> torch.Generator:
    """The random numbers of one image in one epoch, whatever was drawn before and by whom."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{image_id}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
