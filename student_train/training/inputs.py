"""From a configuration to the data of a run: images, annotations, class space, teacher boxes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import lcm

from box_store.categories import ClassSpace
from box_store.coco.annotations import CocoData
from box_store.forms.protocol import Split
from student_train.config import AugmentConfig, TrainConfig
from student_train.data import (
    Batch,
    CocoDetection,
    Loader,
    TrainTransform,
    make_loader,
)
from student_train.data.mixtures import mixed
from student_train.data.splits import (
    Validation,
    find_split,
    make_validation,
    open_split,
    val_source,
)
from student_train.errors import ConfigError
from student_train.machine.distributed import World
from student_train.training.teachers import licences_of, open_teachers


@dataclass(frozen=True)
class Inputs:
    """Everything a trainer reads."""

    class_space: ClassSpace
    augment: AugmentConfig
    train: CocoDetection
    train_loader: Loader
    steps_per_epoch: int
    validation: Validation | None
    notes: tuple[str, ...]
    """what people should know before the run starts, one sentence each"""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """hashes of `train_annotations`, `val_annotations` and teacher `boxes`, where there are any"""
    licences: Mapping[str, str] = field(default_factory=dict)
    """name -> licence, of the teachers whose boxes it learns from"""

    def train_batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch from the given one on."""
        batches = self.train_loader.epoch(epoch, start)
        return mixed(batches, self.augment, self.train.seed, epoch, start)

    def kill_loaders(self) -> None:
        """End the processes that load images, which may wait for ever."""
        self.train_loader.kill()
        if self.validation is not None:
            self.validation.loader.kill()


def train_source(config: TrainConfig) -> Split:
    """The training split."""
    data = config.data
    return find_split(data, data.train_split, data.train_images, data.train_annotations)


def make_inputs(config: TrainConfig, coco: CocoData, world: World) -> Inputs:
    """The data sets and loaders of a run; `coco` is the training split's annotations.

    Raises:
        DataError, StoreError: data or boxes are missing or do not fit each other.
        ConfigError: the batch cannot be divided among the processes.
    """
    data = config.data
    space = ClassSpace(data.class_space, coco.categories)
    source = train_source(config)
    selection, notes = open_teachers(
        config.teachers, coco, data.limit, world, getattr(config.model, "n_queries", None)
    )
    notes = [*source.notes, *(f"{source.name}: {note}" for note in coco.notes), *notes]
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
        augment=config.augment,
        scaled_decode=data.scaled_decode,
    )
    if train.n_unlabelled:
        notes.append(
            f"{train.n_unlabelled} of {len(train)} training images are not labelled: the ground "
            "truth and denoising say nothing there, teachers teach"
        )
        if selection is None and not config.teachers.online:
            notes.append("no teacher is there to teach on images that nobody labelled")
    elif train.n_boxes == 0:
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
        pad_to=lcm(data.pad_to, config.model.side_multiple),
    )
    validation = None
    chosen = val_source(config)
    if chosen is not None:
        val_coco = open_split(chosen)
        validation = make_validation(
            config, chosen, val_coco, space, world, config.eval_batch_size or per_part
        )
        if val_coco.sha256 != coco.sha256:
            notes += [f"{chosen.name}: {note}" for note in val_coco.notes]
        fingerprints["val_annotations"] = val_coco.sha256
    steps = len(loader) // config.optim.accumulate
    return Inputs(
        space,
        config.augment,
        train,
        loader,
        steps,
        validation,
        tuple(notes),
        fingerprints,
        {} if selection is None else licences_of(selection),
    )
