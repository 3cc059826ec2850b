"""Doubts about labels, each with the chance that a person has something to correct.

- missing: teachers have a box where no label is. The chance is that of the surest of them, whose
  score is calibrated where the store has a calibration.
- class: the same, over a label of another class.
- unfound: no teacher that knows the class found the label. Of labels that are right a share 1 - r
  is not found either, where r is the share of the class's labels that some teacher found; with a
  share p of wrong labels to begin with, the chance is p / (p + (1 - p) (1 - r)) (Bayes' rule).
- guess: a box in an image that nobody labelled. What a person does about it is least sure where its
  mean score over the teachers is a half, and where they disagree it is: 1 - |2 s - 1|.

An image comes as early as its doubts add up to: the corrections to be expected in it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from box_store import (
    Boxes,
    BoxStore,
    ImageInfo,
    Selection,
    SelectionSpec,
    TeacherFilter,
    known_images,
    select,
)
from box_store.boxes import pairwise_iou
from box_store.calibration.score_map import read_calibration
from box_store.coco.annotations import Annotations, CocoData
from box_store.identity import seen_by

Kind = Literal["missing", "class", "unfound", "guess"]
KINDS: tuple[Kind, ...] = ("missing", "class", "unfound", "guess")
SAME_IOU = 0.5
# below it, a box is no sign of an object
_LEAST = 0.05
# labels that are wrong before anything is known of them: ten test sets that were looked through
# had 3.3 in a hundred on average (Northcutt et al., NeurIPS 2021)
PRIOR = 0.03
# as teachers of a class find at least this share of its labels, that they miss one says something
LOW_RECALL = 0.5


@dataclass(frozen=True)
class Doubt:
    """One thing to look at. corners: x1, y1, x2, y2 in pixels.

    category: of the teachers' box, or of the label that nobody found. label: the class of the label
    that stands there, if one does. score: of the surest teacher. teachers: who say so.
    """

    kind: Kind
    category: str
    corners: tuple[float, float, float, float]
    chance: float
    label: str | None = None
    score: float | None = None
    teachers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """An image of the queue with its doubts, the likeliest first."""

    image: ImageInfo
    doubts: tuple[Doubt, ...]
    labelled: bool

    @property
    def expected(self) -> float:
        """Corrections to be expected."""
        return sum(doubt.chance for doubt in self.doubts)


@dataclass(frozen=True)
class ClassRecall:
    """How many labels of a class some teacher that knows it found."""

    name: str
    labels: int
    found: int

    @property
    def recall(self) -> float:
        """0..1."""
        return self.found / self.labels if self.labels else 0.0


@dataclass
class Queue:
    """What was found. calibrated: teachers whose scores are chances of being right."""

    pages: list[Page]
    recalls: list[ClassRecall]
    teachers: tuple[str, ...]
    calibrated: tuple[str, ...]
    n_images: int
    counts: dict[Kind, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        return {
            "images_looked_at": self.n_images,
            "teachers": list(self.teachers),
            "calibrated": list(self.calibrated),
            "doubts": self.counts,
            "classes": [asdict(row) | {"recall": round(row.recall, 4)} for row in self.recalls],
            "queue": [
                {
                    "image_id": page.image.id,
                    "file_name": page.image.file_name,
                    "width": page.image.width,
                    "height": page.image.height,
                    "labelled": page.labelled,
                    "expected_corrections": round(page.expected, 4),
                    "doubts": [
                        asdict(doubt)
                        | {"corners": [round(v, 2) for v in doubt.corners]}
                        | {"chance": round(doubt.chance, 4)}
                        for doubt in page.doubts
                    ],
                }
                for page in self.pages
            ],
        }


def find_doubts(
    store: BoxStore,
    truth: CocoData | None,
    folder: Path,
    *,
    teachers: Sequence[str] | None = None,
    least: float = 0.3,
    limit: int = 200,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Queue:
    """Look at every image that a teacher saw; the `limit` that are worth most, worst first.

    truth: the labels; None, or images that are not labelled in it, for guesses alone. folder: for a
    selection, thrown away by the caller. least: doubts of a smaller chance are not worth a person's
    time. progress: images done, and of how many.

    Raises DataError where store and labels are of other images; UnknownTeacher.
    """
    names = tuple(teachers) if teachers is not None else tuple(store.teachers)
    if truth is not None:
        store = seen_by(store, truth, names)
    calibrated = tuple(name for name in names if read_calibration(store, name) is not None)
    own = {name: TeacherFilter(calibrated=True) for name in calibrated}
    spec = SelectionSpec(names, score_floor=_LEAST, nms_iou=SAME_IOU, per_teacher=own)
    selection = Selection.open(select(store, spec, folder))
    known = {
        name: {key for key in store.record(name).class_map.values() if key is not None}
        for name in selection.teachers
    }
    looker = _Looker(selection, truth, {i.id: i.name for i in store.categories.items}, known)
    images = looker.images(known_images(store))
    for at, image in enumerate(images, 1):
        looker.look(image)
        if at % 200 == 0:
            progress(at, len(images))
    recalls = looker.recalls()
    pages = list(_pages(looker, {row.name: row for row in recalls}, least))
    pages.sort(key=lambda page: (-page.expected, page.image.id))
    counts: dict[Kind, int] = {
        kind: sum(d.kind == kind for p in pages for d in p.doubts) for kind in KINDS
    }
    return Queue(pages[:limit], recalls, selection.teachers, calibrated, len(images), counts)


def _pages(looker: "_Looker", recalls: dict[str, ClassRecall], least: float) -> Iterator[Page]:
    for image, (labelled, doubts) in looker.found.items():
        judged = [
            _unfound(doubt, recalls[doubt.category]) if doubt.kind == "unfound" else doubt
            for doubt in doubts
        ]
        kept = sorted((d for d in judged if d.chance >= least), key=lambda d: -d.chance)
        if kept:
            yield Page(image, tuple(kept), labelled)


def _unfound(doubt: Doubt, row: ClassRecall) -> Doubt:
    """The same with its chance; of classes that teachers hardly find it is none."""
    chance = PRIOR / (PRIOR + (1 - PRIOR) * (1 - row.recall))
    return replace(doubt, chance=chance if row.recall >= LOW_RECALL else 0.0)


@dataclass
class _Group:
    """Boxes of teachers that mean one object, the surest first."""

    category: int
    corners: NDArray[np.float32]
    scores: dict[str, float]

    @property
    def score(self) -> float:
        return max(self.scores.values())


class _Looker:
    """Compares what teachers saw with the labels, image by image."""

    def __init__(
        self,
        selection: Selection,
        truth: CocoData | None,
        names: dict[int, str],
        known: dict[str, set[int]],
    ) -> None:
        self._selection = selection
        self._truth = truth
        self._names = names
        self._known = known
        self._labels: dict[int, int] = {}
        self._hits: dict[int, int] = {}
        self._unlabelled: set[int] = set()
        if truth is not None:
            flags = truth.table.unlabelled
            self._unlabelled = set(truth.table.image_ids[flags].tolist())
        self.found: dict[ImageInfo, tuple[bool, list[Doubt]]] = {}

    def images(self, stored: Sequence[ImageInfo]) -> list[ImageInfo]:
        """Those that a teacher saw, and that the labels list where there are some."""
        seen = {
            image_id
            for name in self._selection.teachers
            for image_id in self._selection.of(name).image_ids.tolist()
        }
        if self._truth is not None:
            return [image for image in self._truth.images if image.id in seen]
        return [image for image in stored if image.id in seen]

    def look(self, image: ImageInfo) -> None:
        """Note what is doubtful in an image."""
        seen: dict[str, Boxes] = {}
        for name in self._selection.teachers:
            boxes = self._selection.boxes(name, image.id)
            if boxes is not None:
                seen[name] = boxes
        groups = list(_groups(seen))
        labelled = self._truth is not None and self._truth.labelled
        labelled = labelled and image.id not in self._unlabelled
        if not labelled:
            doubts = [self._guess(group, len(seen)) for group in groups]
        else:
            assert self._truth is not None
            rows = self._truth.annotations_of(image.id)
            doubts = [*self._against(groups, rows), *self._not_found(seen, rows)]
        self.found[image] = (labelled, doubts)

    def recalls(self) -> list[ClassRecall]:
        """Of every class with labels, the worst first."""
        rows = [
            ClassRecall(self._names[key], n, self._hits.get(key, 0))
            for key, n in self._labels.items()
        ]
        return sorted(rows, key=lambda row: (row.recall, row.name))

    def _guess(self, group: _Group, n_teachers: int) -> Doubt:
        mean = sum(group.scores.values()) / n_teachers
        return self._doubt("guess", group, 1 - abs(2 * mean - 1))

    def _doubt(self, kind: Kind, group: _Group, chance: float, label: str | None = None) -> Doubt:
        x1, y1, x2, y2 = group.corners.tolist()
        who = tuple(sorted(group.scores, key=lambda name: -group.scores[name]))
        name = self._names[group.category]
        return Doubt(kind, name, (x1, y1, x2, y2), chance, label, round(group.score, 4), who)

    def _against(self, groups: Sequence[_Group], rows: Annotations) -> Iterator[Doubt]:
        """Boxes that no label of their class overlaps."""
        corners = rows.boxes_xyxy
        for group in groups:
            overlaps = pairwise_iou(group.corners[None], corners)[0]
            crowded = _inside(group.corners, corners[rows.iscrowd])
            if crowded or (overlaps[rows.category_ids == group.category] >= SAME_IOU).any():
                continue
            there = np.flatnonzero(overlaps >= SAME_IOU)
            if len(there) == 0:
                yield self._doubt("missing", group, group.score)
                continue
            label = int(rows.category_ids[there[overlaps[there].argmax()]])
            yield self._doubt("class", group, group.score, self._names[label])

    def _not_found(self, seen: dict[str, Boxes], rows: Annotations) -> Iterator[Doubt]:
        """Labels without a box of a teacher that knows their class; recalls are counted."""
        if len(rows) == 0:
            return
        corners = rows.boxes_xyxy
        found = np.zeros(len(rows), bool)
        asked = np.zeros(len(rows), bool)
        for name, boxes in seen.items():
            knows = np.isin(rows.category_ids, list(self._known[name]))
            asked |= knows
            if len(boxes):
                same = boxes.class_ids[None] == rows.category_ids[:, None]
                found |= ((pairwise_iou(corners, boxes.boxes_xyxy) >= SAME_IOU) & same).any(1)
        for at in np.flatnonzero(asked & ~rows.iscrowd).tolist():
            key = int(rows.category_ids[at])
            self._labels[key] = self._labels.get(key, 0) + 1
            self._hits[key] = self._hits.get(key, 0) + bool(found[at])
            if not found[at]:
                x1, y1, x2, y2 = corners[at].tolist()
                name = self._names[key]
                yield Doubt("unfound", name, (x1, y1, x2, y2), 0.0, name)


def _inside(box: NDArray[np.float32], crowds: NDArray[np.float32]) -> bool:
    """Whether half of a box lies in a crowd."""
    low, high = np.maximum(box[:2], crowds[:, :2]), np.minimum(box[2:], crowds[:, 2:])
    area = float((box[2:] - box[:2]).prod())
    return bool((np.clip(high - low, 0, None).prod(1) >= SAME_IOU * area).any())


def _groups(seen: dict[str, Boxes]) -> Iterator[_Group]:
    """Boxes of all teachers, those of one class and place together."""
    groups: list[_Group] = []
    rows = [
        (score, name, key, corners)
        for name, boxes in seen.items()
        for score, key, corners in zip(
            boxes.scores.tolist(), boxes.class_ids.tolist(), boxes.boxes_xyxy, strict=True
        )
    ]
    rows.sort(key=lambda row: -row[0])
    for score, name, key, corners in rows:
        alike = [g for g in groups if g.category == key and name not in g.scores]
        if alike:
            overlaps = pairwise_iou(corners[None], np.stack([g.corners for g in alike]))[0]
            best = int(overlaps.argmax())
            if overlaps[best] >= SAME_IOU:
                alike[best].scores[name] = score
                continue
        groups.append(_Group(key, corners, {name: score}))
    yield from groups
