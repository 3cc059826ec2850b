"""From a configuration to the data of a run: images, annotations, class space, teacher boxes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from box_store.categories import Categories, ClassSpace
from box_store.coco_annotations import CocoData, load_coco
from box_store.errors import DataError, nearest
from box_store.selection import Selection, SelectionSpec, TeacherFilter, select
from box_store.store import BoxStore
from student_train.config import (
    ALL_TEACHERS,
    NO_TEACHERS,
    DataConfig,
    TeacherConfig,
    TrainConfig,
)
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

NO_SPLIT = "none"


@dataclass(frozen=True)
class Source:
    """One split: where its images and annotations are, and what it is called."""

    name: str
    images: Path
    annotations: Path


@dataclass(frozen=True)
class Validation:
    """A split to evaluate on."""

    source: Source
    dataset: CocoDetection
    loader: Loader
    class_space: ClassSpace


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

    def train_batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch from the given one on."""
        return self.train_loader.epoch(epoch, start)


def find_split(
    data: DataConfig, split: str, images: Path | None, annotations: Path | None
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
    root = data.root or Path()
    if data.root is not None and not root.is_dir() and (images is None or annotations is None):
        raise DataError(f"no data folder at {root}")
    images = images or root / split
    annotations = annotations or root / "annotations" / f"instances_{split}.json"
    if not images.is_dir():
        raise DataError(f"no image folder at {images}.{_alternatives(images)}")
    if not annotations.is_file():
        raise DataError(f"no annotations at {annotations}.{_alternatives(annotations)}")
    return Source(split, images, annotations)


def _alternatives(missing: Path) -> str:
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
    coco = load_coco(source.annotations)
    if not coco.images:
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
    )
    if len(loader) < config.optim.accumulate:
        raise ConfigError(
            [f"{len(train)} training images do not fill one batch of {config.batch_size}"]
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
    steps = len(loader) // config.optim.accumulate
    return Inputs(space, train, loader, steps, validation, tuple(notes))


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
    return Validation(source, dataset, loader, space)


def check_same_categories(wanted: Categories, found: Categories, where: object) -> None:
    """Refuse boxes of another category table.

    Raises:
        DataError: an id is missing or has another name; the first differences are shown.
    """
    ours = {item.id: item.name for item in wanted.items}
    theirs = {item.id: item.name for item in found.items}
    if ours == theirs:
        return
    differing = [
        f"{key}: {ours.get(key, 'missing')!r} here, {theirs.get(key, 'missing')!r} there"
        for key in sorted(set(ours) | set(theirs))
        if ours.get(key) != theirs.get(key)
    ]
    more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
    raise DataError(
        f"the categories of the training data and of {where} differ: "
        f"{'; '.join(differing[:3])}{more}"
    )


def open_teachers(
    config: TeacherConfig, coco: CocoData, limit: int | None, world: World
) -> tuple[Selection | None, list[str]]:
    """The teacher boxes of a run, and a line about each teacher; (None, []) without teachers.

    Raises:
        StoreError, UnknownTeacher: no store or file there, or a name that it lacks.
        DataError: boxes of other categories, or a teacher that saw none of the images.
    """
    if config.names == NO_TEACHERS or not (config.store or config.boxes):
        return None, []
    if config.boxes is not None:
        selection = Selection.open(config.boxes)
        names = selection.teachers if config.names == ALL_TEACHERS else config.names
        for name in names:
            selection.of(name)
    else:
        assert config.store is not None
        store = BoxStore.open(config.store)
        check_same_categories(coco.categories, store.categories, f"the store {store.path}")
        # one process writes the selection, the others find it
        if world.is_first:
            select(store, selection_spec(config))
        world.barrier()
        selection = Selection.open(select(store, selection_spec(config)))
        names = selection.teachers
    chosen = selection if tuple(names) == selection.teachers else _Named(selection, names)
    return chosen, list(_teacher_notes(chosen, coco, limit))


class _Named(Selection):
    """A selection file narrowed to some of its teachers."""

    def __init__(self, selection: Selection, names: Sequence[str]) -> None:
        super().__init__(selection.path)
        self.teachers = tuple(names)

    def __reduce__(self) -> tuple[object, ...]:
        return (_Named, (Selection(self.path), self.teachers))


def selection_spec(config: TeacherConfig) -> SelectionSpec:
    """What to select from the store."""
    own = sorted(
        {*config.score_floors, *config.top_ks, *config.nms_ious, *config.temperatures},
    )
    return SelectionSpec(
        teachers=None if config.names == ALL_TEACHERS else config.names,
        score_floor=config.score_floor,
        top_k=config.top_k,
        nms_iou=config.nms_iou,
        deny_licences=config.deny_licences,
        combine=config.combine,
        fusion=config.fusion,
        per_teacher={
            name: TeacherFilter(
                score_floor=config.score_floors.get(name),
                top_k=config.top_ks.get(name),
                nms_iou=config.nms_ious.get(name),
                temperature=config.temperatures.get(name),
            )
            for name in own
        },
    )


def _teacher_notes(selection: Selection, coco: CocoData, limit: int | None) -> Iterator[str]:
    wanted = np.array([image.id for image in coco.images[:limit]], np.int64)
    for name in selection.teachers:
        rows = selection.of(name)
        unknown = coco.categories.unknown(rows.category_ids)
        if unknown:
            raise DataError(
                f"{selection.path}: boxes of teacher {name} have category ids {unknown[:5]} that "
                f"{coco.path} lacks"
            )
        covered = np.isin(wanted, rows.image_ids)
        if not covered.any():
            raise DataError(
                f"teacher {name} saw none of the {len(wanted)} training images of {coco.path}: "
                "run it on this split, or leave it out of --teachers"
            )
        per_image = np.diff(rows.offsets)[np.isin(rows.image_ids, wanted)]
        yield (
            f"teacher {name}: {int(per_image.sum())} boxes in {int(covered.sum())} of "
            f"{len(wanted)} training images"
        )


def _annotation_notes(name: str, coco: CocoData) -> Iterator[str]:
    for kind, count in coco.problems.items():
        examples = "; ".join(coco.examples.get(kind, ())[:2])
        yield f"{name}: {count} x {kind}" + (f" ({examples})" if examples else "")
