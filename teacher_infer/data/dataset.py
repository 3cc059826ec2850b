"""The images a run labels: one or several COCO splits, or any folder with an annotation file."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from box_store.categories import Categories
from box_store.coco.annotations import ImageInfo, load_coco
from box_store.errors import DataError, UsageError, nearest
from box_store.places.locations import Location, as_typed, location
from box_store.store.store import DatasetInfo
from teacher_infer.data.images import ImageError, ImageTask, find_image

# files looked at before a run starts: enough to tell a wrong folder from a few missing photos
_PROBES = 64


@dataclass(frozen=True)
class Dataset:
    """Images in the order of their ids, and the category table that all their files share.

    problems: how many annotations were dropped or repaired, by kind; a teacher never reads them,
    but whoever trains on them later wants to know.
    """

    info: DatasetInfo
    categories: Categories
    tasks: tuple[ImageTask, ...]
    problems: dict[str, int]

    @property
    def image_ids(self) -> list[int]:
        """Image ids, ascending."""
        return [task.image_id for task in self.tasks]

    @property
    def listed(self) -> dict[int, ImageInfo]:
        """What the annotations say of each image, by id."""
        return {
            task.image_id: ImageInfo(task.image_id, task.file_name, task.width, task.height)
            for task in self.tasks
        }


def load_dataset(
    data: Location | None,
    splits: Sequence[str],
    images: Location | None,
    annotations: Location | None,
) -> Dataset:
    """Read what `--data`/`--split` or `--images`/`--annotations` name.

    Paths or URLs. `data` is a folder in COCO's layout: `data/SPLIT/*.jpg` and
    `data/annotations/instances_SPLIT.json`. Several splits make one data set.

    Raises:
        UsageError: both forms, or half of one, or an unknown split.
        DataError: a folder or file is missing or malformed, the splits do not fit together, there
            is no image, or none of the images is where it should be.
    """
    sources = _sources(data, splits, images, annotations)
    for root, _ in sources:
        if not root.is_dir():
            raise DataError(f"no folder of images at {root}")
    files = [(root, load_coco(path, labelled=False)) for root, path in sources]
    categories = files[0][1].categories
    tasks: dict[int, ImageTask] = {}
    problems: dict[str, int] = {}
    for root, coco in files:
        if coco.categories != categories:
            raise DataError(f"{coco.path} has other categories than {files[0][1].path}")
        for kind, count in coco.problems.items():
            problems[kind] = problems.get(kind, 0) + count
        for image in coco.images:
            if image.id in tasks:
                raise DataError(f"{coco.path}: image id {image.id} is in another split already")
            tasks[image.id] = ImageTask(
                image.id, image.file_name, image.width, image.height, str(root.resolve())
            )
    ordered = tuple(tasks[image_id] for image_id in sorted(tasks))
    where = ", ".join(str(coco.path) for _, coco in files)
    if not ordered:
        raise DataError(f"the data set is empty: {where} lists no image")
    _check_presence(ordered)
    info = DatasetInfo(
        name="+".join(root.name for root, _ in sources),
        annotations_sha256=_joined([coco.sha256 for _, coco in files]),
        n_images=len(ordered),
    )
    return Dataset(info, categories, ordered, problems)


def _sources(
    data: Location | None,
    splits: Sequence[str],
    images: Location | None,
    annotations: Location | None,
) -> list[tuple[Location, Location]]:
    """Pairs of a folder of images and its annotation file."""
    if data is not None and images is None and annotations is None:
        if not splits:
            raise UsageError(f"--data {data} needs --split, for example --split train2017")
        data = as_typed(data)
        if not data.is_dir():
            raise DataError(f"no folder {data}")
        return [_split_source(data, split) for split in dict.fromkeys(splits)]
    if images is not None and annotations is not None and data is None and not splits:
        return [(as_typed(images), as_typed(annotations))]
    raise UsageError(
        "say which images: --data DIR --split NAME (COCO's layout), or --images DIR "
        "--annotations FILE; not both"
    )


def _split_source(data: Location, split: str) -> tuple[Location, Location]:
    annotations = data / "annotations" / f"instances_{split}.json"
    if not annotations.is_file():
        found = sorted(
            path.stem.removeprefix("instances_")
            for path in (data / "annotations").glob("instances_*.json")
        )
        listed = f"; there are: {', '.join(found)}.{nearest(split, found)}" if found else ""
        raise DataError(f"no annotation file at {annotations}{listed}")
    return data / split, annotations


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
    raise DataError(
        f"none of {len(sample)} images looked for exists ({example}): is this the right folder?"
    )
