"""A split of a data set: where its images and annotations lie, and what evaluating on it needs."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from box_store.categories import Categories, ClassSpace, check_same_categories
from box_store.coco.annotations import CocoData
from box_store.errors import DataError, nearest
from box_store.forms.coco import coco_split
from box_store.forms.opening import open_data
from box_store.forms.protocol import Split
from box_store.places.locations import Location, as_typed
from student_train.config import DataConfig, TrainConfig
from student_train.data import (
    AsStored,
    CocoDetection,
    EvalTransform,
    Loader,
    make_loader,
)
from student_train.errors import ConfigError
from student_train.machine.distributed import World


@dataclass(frozen=True)
class Validation:
    """A split to evaluate on."""

    source: Split
    dataset: CocoDetection
    loader: Loader
    class_space: ClassSpace
    backend: str = "pycocotools"
    """what computes the metrics"""


def find_split(
    data: DataConfig, split: str, images: Location | None, annotations: Location | None
) -> Split:
    """A split of `data.root`, whatever form that has; or of the explicit paths where given, for
    which `data.root`, in COCO's layout, only supplies what is not.

    Raises:
        DataError: a folder, file or split is missing; the message says what is there instead.
    """
    if data.root is None and (images is None or annotations is None):
        raise ConfigError(
            [
                f"no data for {split!r}: give --data DIR, or both its images and its annotations "
                f"(COCO); `teach-detr data DIR` says what is in a folder"
            ]
        )
    if images is None and annotations is None:
        return open_data(data.root or Path()).split(split)
    root = as_typed(data.root or Path())
    images = as_typed(images or root / split)
    annotations = as_typed(annotations or root / "annotations" / f"instances_{split}.json")
    if not images.is_dir():
        raise DataError(f"no image folder at {images}.{_alternatives(images)}")
    if not annotations.is_file():
        raise DataError(f"no annotations at {annotations}.{_alternatives(annotations)}")
    return coco_split(split, images, annotations)


def open_split(source: Split, taught: Categories | None = None) -> CocoData:
    """The annotations of a split.

    taught: the classes of teachers; with them a split without annotations is one whose images
    nobody labelled, of these classes.

    Raises:
        DataError: they cannot be used, or list no image or no category.
    """
    coco = source.coco
    if not len(coco.table):
        raise DataError(f"{source.annotations} lists no images: the data set is empty")
    if taught is not None and not (source.labelled and coco.labelled):
        table = replace(coco.table, unlabelled=np.ones(len(coco.table), bool), path=None)
        return replace(coco, categories=taught, table=table, labelled=True)
    if not source.labelled or not coco.labelled:
        raise DataError(
            f"{source.annotations} has no annotations: its images can be labelled by teachers "
            "(`teacher-infer run`), and then be trained on with --store alone"
        )
    if not coco.categories.items:
        raise DataError(f"{source.annotations} lists no categories: there is nothing to detect")
    return coco


def val_source(config: TrainConfig) -> Split | None:
    """The evaluation split; None where it is "none"."""
    data = config.data
    if data.val_split == NO_SPLIT and data.val_annotations is None:
        return None
    return find_split(data, data.val_split, data.val_images, data.val_annotations)


def make_validation(
    config: TrainConfig,
    source: Split,
    coco: CocoData,
    space: ClassSpace,
    world: World,
    batch_size: int,
    resizes: bool = False,
) -> Validation:
    """A split to evaluate on: every image once, nothing random, no teachers.

    resizes: whether the student takes images as they are stored (`TrainedStudent`).

    Raises:
        DataError: its categories are not those of `space`.
    """
    check_same_categories(space.categories, coco.categories, source.annotations)
    if len(coco.table) and coco.table.unlabelled.all():
        raise DataError(
            f"{source.annotations}: nobody labelled its images, nothing can be evaluated"
        )
    if coco.table.unlabelled.any():
        folder, coco = source.images, coco.of_labelled
        source = replace(source, load=lambda: (folder, coco))
    dataset = CocoDetection(
        source.images,
        coco,
        space,
        AsStored() if resizes else EvalTransform(config.augment),
        limit=config.data.val_limit,
        replace=False,
        scaled_decode=config.data.scaled_decode,
    )
    loader = make_loader(
        dataset,
        batch_size,
        shuffle=False,
        workers=config.data.workers,
        rank=world.rank,
        world=world.size,
        pad_to=1 if resizes else config.model.side_multiple,
    )
    return Validation(source, dataset, loader, space, config.eval_backend)


NO_SPLIT = "none"


def _alternatives(missing: Location) -> str:
    """What lies beside a missing path, the nearest name first."""
    if not missing.parent.is_dir():
        return f" There is no folder {missing.parent} either."
    wants_folder = missing.suffix == ""
    names = sorted(p.name for p in missing.parent.iterdir() if p.is_dir() == wants_folder)
    if not names:
        return f" {missing.parent} holds nothing of that kind."
    return f"{nearest(missing.name, names)} {missing.parent} has: {', '.join(names[:8])}"
