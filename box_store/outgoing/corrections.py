"""Corrections that come back from a label tool: what changed, who made each label, and both as one.

An image of the corrections is one of the data set by its name and size. Boxes are paired greedily:
first those that are the same, then those of one class and place, then those of one place.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from box_store.boxes import pairwise_iou, to_xyxy
from box_store.categories import Categories, Category
from box_store.coco.annotations import CocoData, ImageInfo
from box_store.coco.document import read_document
from box_store.coco.rows import Problems, Rows
from box_store.errors import DataError
from box_store.forms.opening import DataSet
from box_store.forms.protocol import Split

KEPT, MOVED, RENAMED, ADDED, REMOVED = "kept", "moved", "renamed", "added", "removed"
CHANGES = (KEPT, MOVED, RENAMED, ADDED, REMOVED)
_SAME_IOU = 0.5
# tools that keep two decimals do not move a box
_EQUAL_PX = 0.02

Origin = dict[str, Any]


@dataclass
class Changes:
    """What people did. counts: by class of the label (of the new one, where it was renamed) and by
    change; confirmed: of the added ones, those that a teacher had suggested, by teacher.

    unfinished: images whose guesses nobody confirmed, which stay as they were. others: images that
    are not in the data set, in words. origins: who made each label, by image (split, id), in the
    order of its labels.
    """

    images: int = 0
    changed: int = 0
    unfinished: int = 0
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    confirmed: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    others: Problems = field(default_factory=Problems)
    origins: dict[tuple[str, int], list[Origin]] = field(default_factory=dict)

    def add(self, name: str, change: str) -> None:
        """One more."""
        row = self.counts.setdefault(name, dict.fromkeys(CHANGES, 0))
        row[change] += 1

    def to_json(self) -> dict[str, Any]:
        """JSON values only, without the origins."""
        return {
            "images": self.images,
            "changed": self.changed,
            "unfinished": self.unfinished,
            "classes": self.counts,
            "confirmed_guesses": self.confirmed,
            "refused_guesses": self.refused,
            "not_in_the_data_set": dict(self.others.counts),
            "examples": {kind: list(texts) for kind, texts in self.others.examples.items()},
        }


@dataclass(frozen=True)
class _Labels:
    """Labels of an image: class names, boxes as x, y, width, height, crowds, areas."""

    names: list[str]
    xywh: NDArray[np.float32]
    crowd: list[bool]
    areas: list[float]

    @property
    def xyxy(self) -> NDArray[np.float32]:
        return to_xyxy(self.xywh)


Suggestions = Mapping[str, Sequence[Mapping[str, Any]]]


def read_suggestions(review: Path) -> Suggestions:
    """What a review suggested, by file name: doubts of `queue.json` that teachers stand for.

    Raises DataError for another file.
    """
    path = review / "queue.json" if review.is_dir() else review
    document = read_document(path, "queue of a review")
    try:
        return {
            row["file_name"]: [doubt for doubt in row["doubts"] if doubt["score"] is not None]
            for row in document["queue"]
        }
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is no queue that `teach-detr review` wrote: {error!r}") from error


def apply(
    data: DataSet, corrections: DataSet, suggestions: Suggestions | None = None
) -> tuple[DataSet, Changes]:
    """The data set with the labels of the corrections, and what changed.

    Images that the corrections do not have stay as they are; where nothing was labelled before they
    are unlabelled. Raises DataError if the corrections have no image of the data set.
    """
    changes = Changes()
    index = _Index(data)
    new: dict[tuple[str, int], _Labels] = {}
    own = {split.name: split.coco for split in data.splits}
    for split in corrections.splits:
        coco = split.coco
        flags = dict(zip(coco.image_ids, coco.table.unlabelled.tolist(), strict=True))
        for image in coco.images:
            found = index.find(split.name, image, changes.others)
            if found is None:
                continue
            if not split.labelled or flags[image.id]:
                changes.unfinished += 1
                continue
            name, original = found
            key = (name, original.id)
            old = _labels(own[name], original.id)
            new[key] = _labels(coco, image.id)
            guesses = (suggestions or {}).get(original.file_name, ())
            changes.images += 1
            _compare(old, new[key], guesses, key, changes)
    if not new and not changes.unfinished:
        first = next(iter(changes.others.examples.values()), ("no image",))[0]
        raise DataError(
            f"{corrections.place} has no image of {data.place} ({first}): corrections are matched "
            "by the file's name and size"
        )
    categories = _with_classes(data, new)
    splits = tuple(_corrected(split, new, categories) for split in data.splits)
    return replace(data, splits=splits), changes


class _Index:
    """Images of a data set by name."""

    def __init__(self, data: DataSet) -> None:
        self._by_name: dict[str, list[tuple[str, ImageInfo]]] = {}
        for split in data.splits:
            for image in split.coco.images:
                for key in {image.file_name, _bare(image.file_name)}:
                    self._by_name.setdefault(key, []).append((split.name, image))

    def find(
        self, split: str, image: ImageInfo, problems: Problems
    ) -> tuple[str, ImageInfo] | None:
        """Split and image of the data set; None, with a note, if there is none, or several."""
        found = self._by_name.get(image.file_name) or self._by_name.get(_bare(image.file_name), [])
        fits = [
            row for row in found if (row[1].width, row[1].height) == (image.width, image.height)
        ]
        same = [row for row in fits if row[0] == split]
        if found and not fits:
            other = found[0][1]
            problems.note(
                "image of another size",
                f"{image.file_name}: {image.width} x {image.height}, in the data set "
                f"{other.width} x {other.height}",
            )
            return None
        chosen = same or fits
        # `trainval` holds the images of its parts once more
        if len({str(row[1]) for row in chosen}) != 1:
            kind = "image that could be several" if chosen else "image not in the data set"
            problems.note(kind, image.file_name)
            return None
        return chosen[0]


def _bare(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _labels(coco: CocoData, image_id: int) -> _Labels:
    rows = coco.annotations_of(image_id)
    names = [coco.categories.by_id(int(key)).name for key in rows.category_ids]
    return _Labels(names, rows.boxes_xywh, rows.iscrowd.tolist(), rows.areas.tolist())


def _compare(
    old: _Labels,
    new: _Labels,
    guesses: Sequence[Mapping[str, Any]],
    key: tuple[str, int],
    changes: Changes,
) -> None:
    pairs = _pairs(old, new)
    origins: list[Origin] = []
    used: set[int] = set()
    for at, name in enumerate(new.names):
        before, change = pairs.get(at, (None, ADDED))
        origin: Origin = {"change": change}
        if before is not None and change == RENAMED:
            origin["was"] = old.names[before]
        changes.add(name, change)
        guess = None if change == KEPT else _suggested(name, new.xyxy[at], guesses, used)
        if guess is not None:
            teacher = guess["teachers"][0]
            origin |= {"suggested_by": teacher, "score": guess["score"]}
            changes.confirmed[teacher] = changes.confirmed.get(teacher, 0) + 1
        origins.append(origin)
    gone = set(range(len(old.names))) - {before for before, _ in pairs.values()}
    for at in gone:
        changes.add(old.names[at], REMOVED)
    changes.refused += len(guesses) - len(used)
    changes.changed += bool(gone) or any(row["change"] != KEPT for row in origins)
    changes.origins[key] = origins


def _pairs(old: _Labels, new: _Labels) -> dict[int, tuple[int, str]]:
    """Which label each new one was, and what happened to it."""
    if not old.names or not new.names:
        return {}
    overlaps = pairwise_iou(new.xyxy, old.xyxy)
    same = np.array([[a == b for b in old.names] for a in new.names])
    equal = np.abs(new.xyxy[:, None] - old.xyxy[None]).max(2) <= _EQUAL_PX
    found: dict[int, tuple[int, str]] = {}
    taken: set[int] = set()
    for allowed, change in ((same & equal, KEPT), (same, MOVED), (~same, RENAMED)):
        candidates = np.argwhere(allowed & ((overlaps >= _SAME_IOU) | equal))
        order = np.argsort(-overlaps[tuple(candidates.T)], kind="stable")
        for a, b in candidates[order].tolist():
            if a not in found and b not in taken:
                found[a] = (b, change)
                taken.add(b)
    return found


def _suggested(
    name: str,
    corners: NDArray[np.float32],
    guesses: Sequence[Mapping[str, Any]],
    used: set[int],
) -> Mapping[str, Any] | None:
    """The guess that a label was made of, where there is one."""
    alike = [at for at, row in enumerate(guesses) if at not in used and row["category"] == name]
    if not alike:
        return None
    boxes = np.array([guesses[at]["corners"] for at in alike], np.float32)
    overlaps = pairwise_iou(corners[None], boxes)[0]
    best = int(overlaps.argmax())
    if overlaps[best] < _SAME_IOU:
        return None
    used.add(alike[best])
    return guesses[alike[best]]


def _with_classes(data: DataSet, new: Mapping[tuple[str, int], _Labels]) -> Categories:
    """The classes of the data set, and behind them those that people added."""
    items = list(data.splits[0].coco.categories.items)
    known = {item.name for item in items}
    added = sorted({name for labels in new.values() for name in labels.names} - known)
    start = max((item.id for item in items), default=0) + 1
    items += [Category(start + at, name) for at, name in enumerate(added)]
    return Categories(tuple(items))


def _corrected(
    split: Split, new: Mapping[tuple[str, int], _Labels], categories: Categories
) -> Split:
    """A split with new labels in some images."""
    coco, table = split.coco, split.coco.table
    never = not (split.labelled and coco.labelled)
    ids = {item.name: item.id for item in categories.items}
    rows = Rows()
    for at, image in enumerate(coco.images):
        labels = new.get((split.name, image.id))
        unlabelled = labels is None and (never or bool(table.unlabelled[at]))
        index = rows.add_image(
            image.id, image.file_name, image.width, image.height, unlabelled=unlabelled
        )
        for number, row in enumerate(_rows(labels or _labels(coco, image.id), ids), 1):
            category, box, crowd, area = row
            rows.add_box(index, category, box, number, crowd=crowd, area=area)
    made = rows.table(lambda at, number: f"{rows.name(at)} label {number}")
    corrected = replace(coco, categories=categories, table=made, labelled=True)
    images = split.images
    return replace(split, load=lambda: (images, corrected), labelled=True)


def _rows(
    labels: _Labels, ids: Mapping[str, int]
) -> Iterator[tuple[int, tuple[float, float, float, float], bool, float]]:
    for name, box, crowd, area in zip(
        labels.names, labels.xywh.tolist(), labels.crowd, labels.areas, strict=True
    ):
        x, y, width, height = box
        yield ids[name], (x, y, width, height), crowd, area
