"""Which boxes of a store are taken out, and in which order: image by image, in bounded memory."""

import operator
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from box_store import (
    Boxes,
    BoxStore,
    Categories,
    CocoData,
    ImageInfo,
    Selection,
    SelectionSpec,
    known_images,
    select,
)
from box_store.errors import DataError, UsageError, nearest
from box_store.forms.opening import annotations_of
from box_store.identity import of_split, seen_by
from box_store.selection.floors import parse_floors

_CONDITION = re.compile(r"\s*(\w+)\s*(>=|<=|!=|=|>|<)\s*(.+?)\s*")
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
    "!=": operator.ne,
}
_MEASURES: dict[str, Callable[[Boxes], NDArray[np.float32]]] = {
    "score": lambda boxes: boxes.scores,
    "area": lambda boxes: boxes.areas,
    "width": lambda boxes: boxes.boxes_xyxy[:, 2] - boxes.boxes_xyxy[:, 0],
    "height": lambda boxes: boxes.boxes_xyxy[:, 3] - boxes.boxes_xyxy[:, 1],
}
_FIELDS = (*_MEASURES, "category", "image_id")

# which boxes of one image (its id, its boxes) stay: bool [N]
Keep = Callable[[int, Boxes], NDArray[np.bool_]]


@dataclass(frozen=True)
class ExportSpec:
    """Which boxes to take out.

    selection: teachers, score floor, top-k, suppression, licences, fusion. where: conditions such
    as `area>=1024`, `category=person,dog` or `image_id!=139`, all of which must hold for what the
    selection left; sizes are pixels of the original image.
    """

    selection: SelectionSpec
    where: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chosen:
    """Box sets by name, opened; `images` are those that some set covers, by ascending id."""

    categories: Categories
    images: tuple[ImageInfo, ...]
    sets: tuple[str, ...]
    selection: Selection
    keep: tuple[Keep, ...]

    def boxes(self, name: str, image_id: int) -> Boxes | None:
        """What is left of one set in one image; None where it does not cover the image."""
        boxes = self.selection.boxes(name, image_id)
        for keep in self.keep:
            if boxes is not None and len(boxes):
                boxes = boxes.take(keep(image_id, boxes))
        return boxes

    def rows(self) -> Iterator[tuple[ImageInfo, str, Boxes]]:
        """Every covered image and set, sets within images; boxes best first, maybe none."""
        for image in self.images:
            for name in self.sets:
                boxes = self.boxes(name, image.id)
                if boxes is not None:
                    yield image, name, boxes


@contextmanager
def open_chosen(
    store: Path, spec: ExportSpec, listed: Path | None = None, split: str | None = None
) -> Iterator[Chosen]:
    """The boxes that a spec chooses, of all images, of one split of the store, or of those images
    that annotations list.

    Raises: UsageError: a condition that cannot be read, no teacher left. DataError: splits whose
    image ids collide, of which none is chosen. UnknownTeacher, StoreError and FormatError as
    `box_store.select` raises them.
    """
    opened = BoxStore.open(store) if split is None else of_split(BoxStore.open(store), split)
    coco = None if listed is None else annotations_of(listed, labelled=False)
    if coco is not None:
        opened = seen_by(opened, coco)
    keep = tuple(condition(text, opened.categories) for text in spec.where)
    # not in the store: that may be read-only
    with tempfile.TemporaryDirectory(prefix="teach-detr-") as folder:
        selection = Selection.open(select(opened, spec.selection, Path(folder)))
        covered = {
            image_id
            for name in selection.teachers
            for image_id in selection.of(name).image_ids.tolist()
        }
        images = tuple(image for image in known_images(opened) if image.id in covered)
        if coco is not None:
            images = _listed(images, coco)
        yield Chosen(opened.categories, images, selection.teachers, selection, keep)


def _listed(images: Sequence[ImageInfo], coco: CocoData) -> tuple[ImageInfo, ...]:
    """Those images that annotations list. Raises DataError where none is."""
    found = tuple(image for image in images if image.id in coco.by_id)
    if not found:
        raise DataError(f"none of the {len(images)} images is listed in {coco.path}")
    return found


def one_set(chosen: Chosen, form: str) -> str:
    """The only box set, for formats whose boxes have no teacher. Raises UsageError for several."""
    if len(chosen.sets) != 1:
        raise UsageError(
            f"the format {form} holds the boxes of one teacher, there are {len(chosen.sets)} "
            f"({', '.join(chosen.sets)}): choose one with --teacher NAME, or merge them with "
            "--fused"
        )
    return chosen.sets[0]


def condition(text: str, categories: Categories) -> Keep:
    """A condition such as `area>=1024` or `category=person,dog`.

    Raises: UsageError: another field or comparison. DataError: no such category.
    """
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise UsageError(
            f"--where {text!r}: expected FIELD, one of >= <= > < = !=, and a value, such as "
            "area>=1024 or category=person,dog"
        )
    field, sign, value = found.groups()
    if field in _MEASURES:
        return _measured(_MEASURES[field], _COMPARE[sign], _number(text, value))
    if field not in _FIELDS:
        raise UsageError(
            f"--where {text!r}: there is no field {field!r}, only {', '.join(_FIELDS)}."
            f"{nearest(field, _FIELDS)}"
        )
    if sign not in ("=", "!="):
        raise UsageError(f"--where {text!r}: {field} is compared with = or != and a list")
    values = [part.strip() for part in value.split(",")]
    if field == "image_id":
        return _listed_images({int(_number(text, part)) for part in values}, sign == "=")
    # a name may have a comma
    whole = [item.id for item in categories.items if item.name == value]
    ids = whole or [categories.by_name(part).id for part in values]
    return _listed_categories(ids, sign == "=")


def _number(text: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UsageError(f"--where {text!r}: expected a number, got {value!r}") from None


def _measured(
    measure: Callable[[Boxes], NDArray[np.float32]],
    compare: Callable[[Any, Any], Any],
    value: float,
) -> Keep:
    # as the store has it: 0.7 is not the float32 nearest to 0.7
    limit = np.float32(value)
    return lambda image_id, boxes: compare(measure(boxes), limit)


def _listed_images(ids: set[int], wanted: bool) -> Keep:
    return lambda image_id, boxes: np.full(len(boxes), (image_id in ids) == wanted)


def _listed_categories(ids: Sequence[int], wanted: bool) -> Keep:
    return lambda image_id, boxes: np.isin(boxes.class_ids, ids, invert=not wanted)


def spec_of(
    form: str,
    *,
    teachers: Sequence[str] | None = None,
    fused: bool = False,
    score_floor: float | None = None,
    class_floors: Sequence[str] = (),
    top_k: int = 100,
    nms_iou: float | None = None,
    calibrated: bool = False,
    licences: Sequence[str] = (),
    deny_licences: Sequence[str] = (),
    where: Sequence[str] = (),
) -> ExportSpec:
    """A spec with the score floor that suits the format: labels are sure boxes, the rest is all.

    class_floors: `NAME=FLOOR`. Raises UsageError.
    """
    if score_floor is None:
        score_floor = 0.3 if form in ("coco", "yolo") else 0.0
    selection = SelectionSpec(
        teachers=tuple(teachers) if teachers else None,
        score_floor=score_floor,
        class_floors=parse_floors(class_floors),
        top_k=top_k,
        nms_iou=nms_iou,
        calibrated=calibrated,
        licences=tuple(licences),
        deny_licences=tuple(deny_licences),
        combine="fused" if fused else "parallel",
    )
    return ExportSpec(selection, tuple(where))
