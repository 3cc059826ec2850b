"""From a configuration to the data of a run: images, annotations, class space, teacher boxes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from box_store.categories import ClassSpace
from box_store.coco_annotations import CocoData, load_coco
from box_store.errors import DataError, nearest
from box_store.locations import Location, as_typed, cache_folder
from student_train.config import DataConfig, TrainConfig
from student_train.data import (
    Batch,
    CocoDetection,
    EvalTransform,
    Loader,
    TrainTransform,
    make_loader,
)
from student_train.distributed import World
from student_train.errors import ConfigError
from student_train.teachers import check_same_categories, open_teachers

NO_SPLIT = "none"


@dataclass(frozen=True)
class Source:
    """One split: where its images and annotations are, and what it is called."""

    name: str
    images: Location
    annotations: Location


@dataclass(frozen=True)
class Validation:
    """A split to evaluate on."""

    source: Source
    dataset: CocoDetection
    loader: Loader
    class_space: ClassSpace
    backend: str = "pycocotools"
    """what computes the metrics"""


@dataclass(frozen=True)
class Inputs:
    """Everything a trainer reads."""

    class_space: ClassSpace
    train: CocoDetection
    train_loader: Loader
    steps_per_epoch: int
    validation: Validation | None
    notes: tuple[str, ...]
    """what people should know before the run starts, one sentence each"""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """hashes of `train_annotations`, `val_annotations` and teacher `boxes`, where there are any"""

    def train_batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch from the given one on."""
        return self.train_loader.epoch(epoch, start)


def find_split(
    data: DataConfig, split: str, images: Location | None, annotations: Location | None
) -> Source:
    """Where a split lies: the explicit paths where given, else the COCO layout below `data.root`.

    Raises:
        DataError: a folder or file is missing; the message says what is there instead.
    """
    if data.root is None and (images is None or annotations is None):
        raise ConfigError(
            [
                f"no data for {split!r}: give --data DIR in COCO layout, "
                "or both its images and its annotations"
            ]
        )
    root = as_typed(data.root or Path())
    if data.root is not None and not root.is_dir() and (images is None or annotations is None):
        raise DataError(f"no data folder at {root}")
    images = as_typed(images or root / split)
    annotations = as_typed(annotations or root / "annotations" / f"instances_{split}.json")
    if not images.is_dir():
        raise DataError(f"no image folder at {images}.{_alternatives(images)}")
    if not annotations.is_file():
        raise DataError(f"no annotations at {annotations}.{_alternatives(annotations)}")
    return Source(split, images, annotations)


def _alternatives(missing: Location) -> str:
    """What lies beside a missing path, the nearest name first."""
    if not missing.parent.is_dir():
        return f" There is no folder {missing.parent} either."
    wants_folder = missing.suffix == ""
    names = sorted(p.name for p in missing.parent.iterdir() if p.is_dir() == wants_folder)
    if not names:
        return f" {missing.parent} holds nothing of that kind."
    return f"{nearest(missing.name, names)} {missing.parent} has: {', '.join(names[:8])}"


def open_split(source: Source) -> CocoData:
    """The annotations of a split.

    Raises:
        DataError: they cannot be used, or list no image or no category.
    """
    coco = load_coco(source.annotations, cache=cache_folder())
    if not len(coco.table):
        raise DataError(f"{source.annotations} lists no images: the data set is empty")
    if not coco.categories.items:
        raise DataError(f"{source.annotations} lists no categories: there is nothing to detect")
    return coco


def train_source(config: TrainConfig) -> Source:
    """The training split."""
    data = config.data
    return find_split(data, data.train_split, data.train_images, data.train_annotations)


def val_source(config: TrainConfig) -> Source | None:
    """The evaluation split; None where it is "none"."""
    data = config.data
    if data.val_split == NO_SPLIT and data.val_annotations is None:
        return None
    return find_split(data, data.val_split, data.val_images, data.val_annotations)


def make_inputs(config: TrainConfig, coco: CocoData, world: World) -> Inputs:
    """The data sets and loaders of a run; `coco` is the training split's annotations.

    Raises:
        DataError, StoreError: data or boxes are missing or do not fit each other.
        ConfigError: the batch cannot be divided among the processes.
    """
    data = config.data
    space = ClassSpace(data.class_space, coco.categories)
    source = train_source(config)
    selection, notes = open_teachers(config.teachers, coco, data.limit, world)
    notes = [*_annotation_notes(source.name, coco), *notes]
    fingerprints = {"train_annotations": coco.sha256}
    if selection is not None:
        fingerprints["boxes"] = str(selection.metadata.get("key", ""))
    train = CocoDetection(
        source.images,
        coco,
        space,
        TrainTransform(config.augment),
        selection=selection,
        seed=config.seed,
        limit=data.limit,
    )
    if train.n_boxes == 0:
        notes.append(f"{source.annotations} has no boxes: only teachers and background are learnt")
    share = world.size * config.optim.accumulate
    if config.batch_size % share:
        raise ConfigError(
            [
                f"batch_size {config.batch_size} cannot be divided among {world.size} processes "
                f"x optim.accumulate={config.optim.accumulate}"
            ]
        )
    per_part = config.batch_size // share
    loader = make_loader(
        train,
        per_part,
        shuffle=True,
        seed=config.seed,
        workers=data.workers,
        rank=world.rank,
        world=world.size,
        parts=config.optim.accumulate,
        aspect_ratios=data.aspect_groups,
        pad_to=data.pad_to,
    )
    validation = None
    chosen = val_source(config)
    if chosen is not None:
        val_coco = coco if chosen.annotations == source.annotations else open_split(chosen)
        validation = make_validation(
            config, chosen, val_coco, space, world, config.eval_batch_size or per_part
        )
        if val_coco is not coco:
            notes += _annotation_notes(chosen.name, val_coco)
        fingerprints["val_annotations"] = val_coco.sha256
    steps = len(loader) // config.optim.accumulate
    return Inputs(space, train, loader, steps, validation, tuple(notes), fingerprints)


def make_validation(
    config: TrainConfig,
    source: Source,
    coco: CocoData,
    space: ClassSpace,
    world: World,
    batch_size: int,
) -> Validation:
    """A split to evaluate on: every image once, nothing random, no teachers.

    Raises:
        DataError: its categories are not those of `space`.
    """
    check_same_categories(space.categories, coco.categories, source.annotations)
    dataset = CocoDetection(
        source.images,
        coco,
        space,
        EvalTransform(config.augment),
        limit=config.data.val_limit,
        replace=False,
    )
    loader = make_loader(
        dataset,
        batch_size,
        shuffle=False,
        workers=config.data.workers,
        rank=world.rank,
        world=world.size,
    )
    return Validation(source, dataset, loader, space, config.eval_backend)


def _annotation_notes(name: str, coco: CocoData) -> Iterator[str]:
    for kind, count in coco.problems.items():
        examples = "; ".join(coco.examples.get(kind, ())[:2])
        yield f"{name}: {count} x {kind}" + (f" ({examples})" if examples else "")
