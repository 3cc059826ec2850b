"""COCO annotation files: read once, checked once, and handed on as arrays.

A large file is kept as a table beside which JSON need not be parsed again: `load_coco(cache=...)`.
"""

import hashlib
import json
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from box_store.categories import Categories
from box_store.coco.annotation_table import (
    AnnotationTable,
    open_with_metadata,
    pack_names,
    write_table,
)
from box_store.errors import DataError, FormatError
from box_store.places.locations import Location, RemoteError, as_typed, staged

# COCO writes two decimals, so x + width may pass the border by a hundredth: not worth a report
_ROUNDING_PX = 0.05
_EXAMPLES = 3
# parsing less is faster than looking for a table
_CACHED_FROM_BYTES = 2**23


@dataclass(frozen=True, slots=True, order=True)
class ImageInfo:
    """One image of the data set; size in pixels as stored on disk."""

    id: int
    file_name: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, eq=False)
class Annotations:
    """Ground truth of one image, boxes cut to the image.

    boxes_xywh: float32 [N, 4], x, y of the top left corner, width, height, pixels.
    category_ids: int32 [N], raw ids. iscrowd: bool [N]. areas: float32 [N], the annotated area
    (of the mask where there is one), square pixels.
    """

    boxes_xywh: NDArray[np.float32]
    category_ids: NDArray[np.int32]
    iscrowd: NDArray[np.bool_]
    areas: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.category_ids)

    @property
    def boxes_xyxy(self) -> NDArray[np.float32]:
        """float32 [N, 4], corners, pixels."""
        return np.concatenate(
            [self.boxes_xywh[:, :2], self.boxes_xywh[:, :2] + self.boxes_xywh[:, 2:]], axis=1
        )


_NO_ANNOTATIONS = Annotations(
    np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool), np.zeros(0, np.float32)
)


@dataclass(frozen=True, eq=False)
class CocoData:
    """A COCO annotation file.

    Everything lies in the arrays of `table`; `images`, `by_id` and `annotations` are objects made
    from them when first asked for. `problems` counts what was dropped or repaired, `examples` names
    the first few of each kind.
    """

    path: Location
    sha256: str
    categories: Categories
    table: AnnotationTable
    problems: Mapping[str, int]
    examples: Mapping[str, tuple[str, ...]]

    @property
    def image_ids(self) -> tuple[int, ...]:
        """Image ids in the order of the file."""
        return tuple(self.table.image_ids.tolist())

    @cached_property
    def images(self) -> tuple[ImageInfo, ...]:
        """All images in the order of the file."""
        table = self.table
        sizes = zip(table.widths.tolist(), table.heights.tolist(), strict=True)
        return tuple(
            ImageInfo(image_id, table.file_name(index), *size)
            for index, (image_id, size) in enumerate(
                zip(table.image_ids.tolist(), sizes, strict=True)
            )
        )

    @cached_property
    def by_id(self) -> dict[int, ImageInfo]:
        """Image by id."""
        return {image.id: image for image in self.images}

    @cached_property
    def annotations(self) -> dict[int, Annotations]:
        """Ground truth by image id, of images that have some."""
        full = np.flatnonzero(np.diff(self.table.offsets))
        return {int(self.table.image_ids[index]): self._rows(int(index)) for index in full}

    @property
    def n_boxes(self) -> int:
        """Annotations kept."""
        return len(self.table.category_ids)

    def annotations_of(self, image_id: int) -> Annotations:
        """Ground truth of an image, empty where it has none."""
        index = self.table.index_of(image_id)
        return _NO_ANNOTATIONS if index is None else self._rows(index)

    def _rows(self, index: int) -> Annotations:
        table, rows = self.table, self.table.rows(index)
        return Annotations(
            table.boxes_xywh[rows], table.category_ids[rows], table.iscrowd[rows], table.areas[rows]
        )


def load_coco(
    annotations: Location, *, labelled: bool = True, cache: Path | None = None
) -> CocoData:
    """Read and check a COCO annotation file.

    Boxes of zero or negative size and boxes wholly outside their image are dropped, boxes that
    stick out are cut, and both are counted in `CocoData.problems`. With `labelled=False` a file
    without an `annotations` list is taken as images to be labelled.

    cache: a folder for tables of large files, named by their content: the second time, the file is
    hashed and its table mapped, which takes a hundredth of the time and no memory of its own.

    Raises DataError for: a missing file, a file that is no JSON, missing keys, an image or
    annotation id that occurs twice, an annotation of an unknown image or category.
    """
    path = as_typed(annotations)
    worth_it = cache is not None and labelled and _size(path) >= _CACHED_FROM_BYTES
    if cache is None or not worth_it:
        return _parse(path, labelled)
    try:
        with staged(path).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        # parsing says what is wrong
        return _parse(path, labelled)
    kept = cache / f"{sha256}.annotations.arrow"
    try:
        return _from_table(path, sha256, kept)
    except (FileNotFoundError, FormatError):
        pass
    coco = _parse(path, labelled)
    sha256, kept = coco.sha256, cache / f"{coco.sha256}.annotations.arrow"
    metadata = {
        "sha256": sha256,
        "categories": coco.categories.to_json(),
        "problems": coco.problems,
        "examples": coco.examples,
    }
    try:
        write_table(kept, coco.table, metadata)
    except OSError:
        # a home that is full or read-only costs the time of parsing, nothing else
        return coco
    return _from_table(path, sha256, kept)


def _from_table(path: Location, sha256: str, kept: Path) -> CocoData:
    table, document = open_with_metadata(kept)
    return CocoData(
        path,
        sha256,
        Categories.from_coco(document["categories"]),
        table,
        document["problems"],
        {kind: tuple(texts) for kind, texts in document["examples"].items()},
    )


def _size(path: Location) -> int:
    try:
        return staged(path).stat().st_size
    except OSError:
        # reading it says what is wrong
        return 0


def _parse(path: Location, labelled: bool) -> CocoData:
    raw = _read_bytes(path)
    sha256 = hashlib.sha256(raw).hexdigest()
    try:
        # outlines are most of a COCO file and nobody here needs them
        document = json.loads(raw, object_hook=_without_outline)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error
    wanted = ("images", "categories", "annotations") if labelled else ("images", "categories")
    if not isinstance(document, dict):
        hint = " This looks like a results file." if isinstance(document, list) else ""
        raise DataError(
            f"{path}: expected a COCO annotation file, an object with the lists "
            f"{', '.join(wanted)}; got a {type(document).__name__}.{hint}"
        )
    missing = [key for key in wanted if not isinstance(document.get(key), list)]
    if missing:
        raise DataError(
            f"{path}: a COCO annotation file needs the lists {', '.join(wanted)}; "
            f"{' and '.join(missing)} missing"
        )
    try:
        categories = Categories.from_coco(document["categories"])
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    images = _read_images(path, document["images"])
    table, problems, examples = _read_annotations(
        path, document.get("annotations") or [], images, categories
    )
    return CocoData(path, sha256, categories, table, problems, examples)


def _read_bytes(path: Location) -> bytes:
    try:
        return staged(path).read_bytes()
    except FileNotFoundError as error:
        near = path.parent
        where = (
            f"the folder {near} exists" if near.is_dir() else f"the folder {near} is missing too"
        )
        raise DataError(f"no annotation file at {path} ({where})") from error
    except RemoteError:
        raise
    except OSError as error:
        raise DataError(f"cannot read the annotation file {path}: {error.strerror}") from error


def _without_outline(row: dict[str, Any]) -> dict[str, Any]:
    row.pop("segmentation", None)
    return row


def _read_images(path: Location, rows: list[Any]) -> tuple[ImageInfo, ...]:
    images: dict[int, ImageInfo] = {}
    for position, row in enumerate(rows):
        _need(path, "image", position, row, ("id", "file_name", "width", "height"))
        name, size = row["file_name"], (row["width"], row["height"])
        if not _whole(row["id"]):
            raise DataError(
                f"{path}: image {position} has the id {row['id']!r}, not a whole number"
            )
        if not isinstance(name, str) or not name:
            raise DataError(f"{path}: image {row['id']} has no file name (got {name!r})")
        if not all(_whole(side) and side > 0 for side in size):
            raise DataError(
                f"{path}: image {row['id']} ({name}) must be at least 1 x 1 pixels, got "
                f"{size[0]!r} x {size[1]!r}"
            )
        image = ImageInfo(int(row["id"]), name, int(size[0]), int(size[1]))
        if image.id in images:
            raise DataError(
                f"{path}: image id {image.id} occurs twice: {images[image.id].file_name} and {name}"
            )
        images[image.id] = image
    return tuple(images.values())


def _read_annotations(
    path: Location, rows: list[Any], images: tuple[ImageInfo, ...], categories: Categories
) -> tuple[AnnotationTable, dict[str, int], dict[str, tuple[str, ...]]]:
    problems: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    by_id = {image.id: (index, image) for index, image in enumerate(images)}
    owners, boxes, ids, crowd, areas = array("q"), array("d"), array("q"), array("b"), array("d")
    seen: set[int] = set()

    def note(kind: str, text: str) -> None:
        problems[kind] += 1
        if len(examples.setdefault(kind, [])) < _EXAMPLES:
            examples[kind].append(text)

    for position, row in enumerate(rows):
        _need(path, "annotation", position, row, ("id", "image_id", "category_id", "bbox"))
        key, image_id, category_id, bbox = (
            row["id"],
            row["image_id"],
            row["category_id"],
            row["bbox"],
        )
        if not _whole(key) or key in seen:
            what = "occurs twice" if _whole(key) else "is not a whole number"
            raise DataError(f"{path}: annotation id {key!r} {what}")
        seen.add(key)
        known = by_id.get(image_id) if _whole(image_id) else None
        if known is None:
            raise DataError(
                f"{path}: annotation {key} is of image {image_id!r}, which is not listed"
            )
        index, image = known
        if not _whole(category_id) or category_id not in categories:
            raise DataError(
                f"{path}: annotation {key} has the unknown category id {category_id!r}; "
                f"{categories.describe_ids()}"
            )
        box = _numbers(bbox)
        if box is None:
            note("not a box", f"annotation {key} (image {image_id}): {bbox!r}")
            continue
        x, y, width, height = box
        if width <= 0 or height <= 0:
            note("no area", f"annotation {key} (image {image_id}): {width:g} x {height:g}")
            continue
        x1, y1 = min(max(x, 0.0), image.width), min(max(y, 0.0), image.height)
        x2, y2 = min(x + width, image.width), min(y + height, image.height)
        if x2 <= x1 or y2 <= y1:
            note("outside its image", f"annotation {key} (image {image_id}): {bbox!r}")
            continue
        if max(x1 - x, y1 - y, x + width - x2, y + height - y2) > _ROUNDING_PX:
            note("cut to its image", f"annotation {key} (image {image_id}): {bbox!r}")
        area = row.get("area")
        area = float(area) if isinstance(area, int | float) else (x2 - x1) * (y2 - y1)
        owners.append(index)
        boxes.extend((x1, y1, x2 - x1, y2 - y1))
        ids.append(category_id)
        crowd.append(bool(row.get("iscrowd", 0)))
        areas.append(area)
    # stable: annotations of an image stay in the order of the file
    order = np.argsort(np.frombuffer(owners, np.int64), kind="stable")
    counts = np.bincount(np.frombuffer(owners, np.int64), minlength=len(images))
    table = AnnotationTable(
        np.array([image.id for image in images], np.int64),
        np.array([image.width for image in images], np.int32),
        np.array([image.height for image in images], np.int32),
        *pack_names([image.file_name for image in images]),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.frombuffer(boxes, np.float64).reshape(-1, 4)[order].astype(np.float32),
        np.frombuffer(ids, np.int64)[order].astype(np.int32),
        np.frombuffer(crowd, np.int8)[order].astype(bool),
        np.frombuffer(areas, np.float64)[order].astype(np.float32),
    )
    return table, dict(problems), {kind: tuple(texts) for kind, texts in examples.items()}


def _need(path: Location, what: str, position: int, row: Any, keys: Iterable[str]) -> None:
    if not isinstance(row, dict):
        raise DataError(f"{path}: {what} {position} is no object but {row!r}")
    lacking = [key for key in keys if key not in row]
    if lacking:
        label = f"{what} {row['id']}" if "id" in row else f"{what} number {position}"
        raise DataError(f"{path}: {label} lacks {' and '.join(lacking)}")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _numbers(bbox: Any) -> tuple[float, float, float, float] | None:
    if not isinstance(bbox, list) or len(bbox) != 4:
        return None
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in bbox):
        return None
    x, y, width, height = (float(value) for value in bbox)
    return x, y, width, height
