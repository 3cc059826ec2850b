"""What would go wrong with a run or be lost in it, seen before its first step: a sentence each."""

from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from box_store.errors import DataError
from box_store.places.locations import Location
from student_train.config import TrainConfig
from student_train.data import CocoDetection
from student_train.machine.shared_memory import SHARED_MEMORY, free_shared_memory
from student_train.training.inputs import Inputs

# an object thinner than this is less than a cell of the finest map that students look at
_FEW_PIXELS = 4
_SMALL_IMAGE = 64
_EARLY = 0.5


def foreseen(config: TrainConfig, inputs: Inputs, total_steps: int) -> list[str]:
    """Warnings of a run. Raises DataError where most images of a split do not exist."""
    sets = [inputs.train]
    if inputs.validation is not None:
        sets.append(inputs.validation.dataset)
    return [
        *(line for dataset in sets for line in _missing_images(dataset)),
        *_repeated(inputs.train),
        *_seen_in_training(inputs),
        *_too_many_objects(config, inputs.train),
        *_shrunk(config, inputs.train),
        *_schedule(config, inputs.steps_per_epoch, total_steps),
        *_shared_memory(config, inputs),
    ]


def _missing_images(dataset: CocoDetection) -> Iterator[str]:
    names = [dataset.file_name(index) for index in range(len(dataset))]
    there = _listed(dataset.root, {str(PurePosixPath(name).parent) for name in names})
    missing = [name for name in names if str(PurePosixPath(name)) not in there]
    if not missing:
        return
    shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    text = f"{len(missing)} of {len(names)} images are not in {dataset.root} ({shown})"
    if 2 * len(missing) > len(names):
        raise DataError(
            f"{text}: is it another split's folder, or another level of it? Images are looked for "
            "at this folder / the file_name of the annotations"
        )
    yield f"{text}: they are left out"


def _repeated(dataset: CocoDetection) -> Iterator[str]:
    n = len(dataset) - len(_files(dataset))
    if n:
        yield (
            f"{n} of the training images are files that others of the list are: to each "
            "the others' objects are background"
        )


def _seen_in_training(inputs: Inputs) -> Iterator[str]:
    if inputs.validation is None:
        return
    judged = _files(inputs.validation.dataset)
    n = len(judged & _files(inputs.train))
    if n:
        yield (
            f"{n} of {len(judged)} evaluation images are training images: AP says how well they "
            "were learnt, not what the student finds in others"
        )


def _files(dataset: CocoDetection) -> set[str]:
    return {f"{dataset.root}/{dataset.file_name(index)}" for index in range(len(dataset))}


def _listed(root: Location, folders: set[str]) -> set[str]:
    """Names below `root` of the files of some folders below it, each listed once."""
    found: set[str] = set()
    for folder in folders:
        place = root if folder == "." else root / folder
        if ".." in PurePosixPath(folder).parts or not place.is_dir():
            continue
        prefix = "" if folder == "." else f"{folder}/"
        found.update(f"{prefix}{path.name}" for path in place.iterdir())
    return found


def _too_many_objects(config: TrainConfig, dataset: CocoDetection) -> Iterator[str]:
    n_queries = getattr(config.model, "n_queries", None)
    counts = dataset.objects_per_image
    if n_queries is None or not (counts > n_queries).any():
        return
    yield (
        f"{int((counts > n_queries).sum())} images have more objects than the student has queries "
        f"(up to {int(counts.max())}, model.n_queries={n_queries}): it can not find all of them"
    )


def _shrunk(config: TrainConfig, dataset: CocoDetection) -> Iterator[str]:
    """Images and objects of which evaluation leaves a few pixels."""
    augment = config.augment
    widths, heights = dataset.widths.astype(float), dataset.heights.astype(float)
    if augment.eval_square is not None:
        across, down = augment.eval_square / widths, augment.eval_square / heights
    else:
        short, long = np.minimum(widths, heights), np.maximum(widths, heights)
        across = np.minimum(augment.eval_short_side / short, augment.eval_long_side / long)
        down = across
    sides: NDArray[np.float64] = np.minimum(widths * across, heights * down)
    small = (sides < _SMALL_IMAGE) & (np.minimum(across, down) < 1)
    if small.any():
        worst = int(np.argmin(np.where(small, sides, np.inf)))
        yield (
            f"{int(small.sum())} of {len(dataset)} images are shrunk to a short side of less than "
            f"{_SMALL_IMAGE} px, {dataset.file_name(worst)} of {int(widths[worst])} x "
            f"{int(heights[worst])} px to {sides[worst]:.0f}: train on tiles (augment.tile=PIXELS, "
            "predict --tile), or raise augment.eval_long_side and augment.long_side"
        )
    images, boxes = dataset.objects()
    thin = np.minimum(boxes[:, 2] * across[images], boxes[:, 3] * down[images])
    lost = (thin < _FEW_PIXELS) & (np.minimum(across, down)[images] < 1)
    if len(lost) and lost.mean() > 0.1:
        yield (
            f"{lost.mean():.0%} of the objects are less than {_FEW_PIXELS} px thin once their "
            "images are shrunk: raise the sizes of augment.*, or train on tiles "
            "(augment.tile=PIXELS, predict --tile)"
        )


def _schedule(config: TrainConfig, steps_per_epoch: int, total_steps: int) -> Iterator[str]:
    optim, epochs = config.optim, total_steps / max(1, steps_per_epoch)
    if optim.schedule == "step" and optim.drop_epochs:
        drops = ", ".join(f"{epoch:g}" for epoch in optim.drop_epochs)
        if min(optim.drop_epochs) >= epochs:
            yield (
                f"the learning rate never drops: optim.drop_epochs={drops}, and the run has "
                f"{epochs:.4g} epochs; optim.schedule=cosine fits any length"
            )
        elif max(optim.drop_epochs) >= epochs:
            yield f"of optim.drop_epochs={drops} some lie beyond the run's {epochs:.4g} epochs"
        if min(optim.drop_epochs) < _EARLY * epochs:
            yield (
                f"the learning rate drops after {min(optim.drop_epochs):g} of {epochs:.4g} epochs, "
                "and most of the run learns slowly: move optim.drop_epochs with the epochs"
            )
    if optim.warmup_steps >= total_steps:
        yield (
            f"the learning rate never gets to its height: optim.warmup_steps={optim.warmup_steps}, "
            f"and the run has {total_steps} steps"
        )
    if _ends_first(config.eval_every, epochs):
        yield (
            f"eval_every={config.eval_every:g} epochs is longer than the run of {epochs:.4g}: it "
            "is evaluated at its end only"
        )


def _ends_first(eval_every: float, epochs: float) -> bool:
    """Whether an interval of evaluations never ends within a run; 0 asks for that."""
    return eval_every > 0 and eval_every > epochs


def _shared_memory(config: TrainConfig, inputs: Inputs) -> Iterator[str]:
    """Loader processes keep two batches each ready."""
    workers, room = config.data.workers, free_shared_memory()
    if not workers or room is None:
        return
    augment = config.augment
    largest = max(augment.short_sides) * augment.long_side
    if augment.squares:
        largest = max(augment.squares) ** 2
    images = inputs.train_loader.order.batch_size
    needed = 2 * workers * images * 3 * largest
    if room.free < needed:
        yield (
            f"shared memory ({SHARED_MEMORY}) has {room.free / 2**20:.4g} MiB free, and the "
            f"batches of data.workers={workers} can fill {needed / 2**20:.4g}: make it larger "
            "(docker: --shm-size), or give fewer data.workers"
        )
