"""The images a run labels: splits of a data set of any form."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from box_store.categories import Categories
from box_store.coco.annotations import CocoData, ImageInfo
from box_store.errors import DataError, UsageError
from box_store.forms.coco import coco_split
from box_store.forms.opening import open_data
from box_store.forms.protocol import Split
from box_store.places.locations import Location, as_typed, location
from box_store.store.records import image_ids_sha256
from box_store.store.splits import joined_name
from box_store.store.store import DatasetInfo
from teacher_infer.data.images import ImageError, ImageTask, find_image

# files looked at before a run starts: enough to tell a wrong folder from a few missing photos
_PROBES = 64


@dataclass(frozen=True)
class Dataset:
    """Images in the order of their ids, and the category table that all their files share. Splits
    whose ids collide follow one another.

    problems: how many annotations were dropped or repaired, by kind; a teacher never reads them,
    but whoever trains on them later wants to know. notes: what the data set was taken for.
    """

    info: DatasetInfo
    categories: Categories
    tasks: tuple[ImageTask, ...]
    problems: dict[str, int]
    notes: tuple[str, ...] = ()

    @property
    def image_ids(self) -> list[int]:
        """Image ids; ascending, split by split where they collide."""
        return [task.image_id for task in self.tasks]

    @property
    def images_sha256(self) -> str:
        """Hash of which images there are, in their order."""
        return image_ids_sha256(self.image_ids, [task.split for task in self.tasks])

    @property
    def listed(self) -> tuple[ImageInfo, ...]:
        """What the annotations say of each image."""
        return tuple(
            ImageInfo(task.image_id, task.file_name, task.width, task.height, task.split)
            for task in self.tasks
        )


def load_dataset(
    data: Location | None,
    splits: Sequence[str],
    images: Location | None,
    annotations: Location | None,
) -> Dataset:
    """Read what `--data`/`--split` or `--images`/`--annotations` name.

    Paths or URLs. `data` is a data set of any form that `box_store.forms` reads; of one with a
    single split, that one is taken where none is named. Several splits make one data set. With
    `images` and `annotations`, `splits` may name the split that they are.

    Raises:
        UsageError: both forms, or half of one, or no split of several.
        DataError: a folder or file is missing or malformed, the splits do not fit together, there
            is no image, or none of the images is where it should be.
    """
    found, notes = _sources(data, splits, images, annotations)
    files = [(split.images, split.coco) for split in found]
    for root, _ in files:
        if not root.is_dir():
            raise DataError(f"no folder of images at {root}")
    categories = files[0][1].categories
    tasks: dict[tuple[str, int, str], ImageTask] = {}
    problems: dict[str, int] = {}
    for root, coco in files:
        if difference := categories.differences(coco.categories):
            raise DataError(
                f"{coco.path} ({coco.split}) has other categories than {files[0][1].path} "
                f"({files[0][1].split}): {difference}"
            )
        for kind, count in coco.problems.items():
            problems[kind] = problems.get(kind, 0) + count
        folder = str(root.resolve())
        for image in coco.images:
            size = (image.width, image.height)
            task = ImageTask(image.id, image.file_name, *size, folder, image.split)
            # one file may be in two splits, as in `train` and `trainval`
            key = (folder, image.id, image.file_name)
            other = tasks.get(key)
            tasks[key] = task if other is None else _shared(other, task, coco)
    ordered = _ordered(tuple(tasks.values()))
    where = ", ".join(str(coco.path) for _, coco in files)
    if not ordered:
        raise DataError(f"the data set is empty: {where} lists no image")
    _check_presence(ordered)
    info = DatasetInfo(
        name="+".join(split.name for split in found),
        annotations_sha256=_joined([coco.sha256 for _, coco in files]),
        n_images=len(ordered),
    )
    return Dataset(info, categories, ordered, problems, notes)


def _shared(one: ImageTask, other: ImageTask, coco: CocoData) -> ImageTask:
    """An image that two splits list."""
    if (one.width, one.height) != (other.width, other.height):
        raise DataError(
            f"{coco.path}: image {one.image_id}, {one.file_name}, is {other.width} x "
            f"{other.height} here and {one.width} x {one.height} in the split {one.split}"
        )
    return replace(one, split=joined_name([one.split, other.split]))


def _ordered(tasks: tuple[ImageTask, ...]) -> tuple[ImageTask, ...]:
    if len({task.image_id for task in tasks}) == len(tasks):
        return tuple(sorted(tasks, key=lambda task: task.image_id))
    place = {split: at for at, split in enumerate(dict.fromkeys(task.split for task in tasks))}
    return tuple(sorted(tasks, key=lambda task: (place[task.split], task.image_id)))


def _sources(
    data: Location | None,
    splits: Sequence[str],
    images: Location | None,
    annotations: Location | None,
) -> tuple[list[Split], tuple[str, ...]]:
    """The splits to label, and what people should know of how they were found."""
    if data is not None and images is None and annotations is None:
        found = open_data(data)
        if not splits and len(found.splits) > 1:
            names = ", ".join(split.name for split in found.splits)
            raise UsageError(f"--data {data} needs --split: there are {names}")
        chosen = [found.split(name) for name in dict.fromkeys(splits)] or list(found.splits)
        return chosen, found.remarks
    if images is not None and annotations is not None and data is None and len(splits) <= 1:
        folder = as_typed(images)
        name = splits[0] if splits else folder.name
        return [coco_split(name, folder, as_typed(annotations), named=bool(splits))], ()
    raise UsageError(
        "say which images: --data DIR --split NAME, or --images DIR --annotations FILE, which one "
        "--split may name; not both"
    )


def _joined(hashes: list[str]) -> str:
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _check_presence(tasks: Sequence[ImageTask]) -> None:
    """DataError when not one image of an even sample is there: then the folder is wrong."""
    sample = tasks[:: max(1, len(tasks) // _PROBES)]
    first: ImageError | None = None
    for task in sample:
        try:
            if find_image(task).is_file():
                return
        except ImageError as error:
            first = first or error
    example = first or location(sample[0].root) / sample[0].file_name
    name = sample[0].file_name
    why = "is this the right folder?"
    if "\\" in name:
        why = "names with backslashes are of Windows: give the data set by --data, or use /"
    elif "%" in name:
        why = "names with % are those of a URL: give the data set by --data, or decode them"
    raise DataError(f"none of {len(sample)} images looked for exists ({example}): {why}")
