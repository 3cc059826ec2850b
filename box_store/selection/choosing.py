"""How much of a teacher to take, and whether to take it at all, from annotations alone.

For every suppression and score floor, a teacher's boxes are right with some precision P and find
some share R of the annotated objects of the classes that it knows. Taken is the best P x R, the
square of the Fowlkes-Mallows index. Unlike F1 it does not move where annotations are missing at
random: R stays, and every P falls by the same factor (the argument of Lee and Liu, ICML 2003, for
learning from positive and unlabelled examples). The index also says when a teacher is not worth
having: with wrong ids, a wrong class map or boxes that lie elsewhere it is hardly above what the
same boxes reach by chance, on the annotations of other images, and that falls with it.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from box_store.calibration.judging import Judged, judge_each
from box_store.calibration.score_map import Calibration
from box_store.coco.annotations import CocoData
from box_store.errors import DataError
from box_store.selection.rows import Rule
from box_store.store.store import BoxStore

CHOICES = ("nms_iou", "score_floor", "top_k")
NMS_IOUS = (0.7, 0.6, 0.5, 0.4, 0.3)
TOP_KS = (5, 10, 15, 20, 30, 50, 75, 100)
# below it, or below so many times the agreement of chance, boxes and annotations have too little to
# do with each other
MIN_AGREEMENT = 0.1
MIN_OVER_CHANCE = 1.5
# fewer say nothing about settings
MIN_OBJECTS = 20
# two settings whose agreement differs by less are as good as each other
_TIE = 0.01
# share of the right boxes that `top_k` keeps
_KEPT = 0.99
# settings do not change any more with more images, and this many take seconds
_MAX_IMAGES = 1000
_MOST_BOXES = 300

Verdict = Literal["as it is", "chosen", "left out", "not judged"]


@dataclass(frozen=True)
class Taken:
    """What some settings take of a teacher, in the images looked at.

    boxes: an image. right: the share of them that is right, found: that of the annotated objects
    that they find, each 0..1. agreement: the square root of right x found.
    """

    boxes: float
    right: float
    found: float

    @property
    def agreement(self) -> float:
        """Fowlkes-Mallows index, 0..1."""
        return float(np.sqrt(self.right * self.found))


@dataclass(frozen=True)
class Choice:
    """The settings of one teacher, and why.

    rule: what a selection should ask of it. given, best: the settings as given, and those that
    agree best with the annotations. chosen: which of `CHOICES` were chosen rather than
    given. before, after: what the given settings take, and the chosen ones; None where nothing
    could be judged. chance: agreement with the annotations of other images. repeats: share of the
    boxes before that overlap a better one of their class by
    more than 0.5. annotated: objects an image of the classes that it knows. classes: ids of these.
    reason: a sentence where it was left out or not judged.
    """

    teacher: str
    verdict: Verdict
    rule: Rule
    given: Rule
    best: Rule
    chosen: tuple[str, ...] = ()
    n_images: int = 0
    annotated: float = 0.0
    before: Taken | None = None
    after: Taken | None = None
    chance: float = 0.0
    repeats: float = 0.0
    classes: tuple[int, ...] = ()
    reason: str = ""

    @property
    def is_taken(self) -> bool:
        """Whether it teaches."""
        return self.verdict != "left out"

    def to_json(self) -> dict[str, Any]:
        """All of it, for the record of a run."""
        return asdict(self) | {"is_taken": self.is_taken}


def choose(
    store: BoxStore,
    teacher: str,
    coco: CocoData,
    rule: Rule,
    *,
    free: Collection[str] = CHOICES,
    calibration: Calibration | None = None,
    keep: bool = False,
    max_images: int = _MAX_IMAGES,
    seed: int = 0,
) -> Choice:
    """What to take of a teacher, judged by annotated images that it saw.

    rule: the settings as given, of which those in `free` may be changed. calibration: of its
    scores, where `rule` asks for calibrated ones. keep: never leave it out. max_images: look at no
    more, drawn with `seed`. The same input gives the same choice.
    """
    given = Choice(teacher, "not judged", rule, rule, rule)
    nms_ious = (None, 0.5, rule.nms_iou, *(NMS_IOUS if "nms_iou" in free else ()))
    try:
        judged = judge_each(
            store, teacher, coco, nms_ious, top_k=_MOST_BOXES, max_images=max_images, seed=seed
        )
    except DataError as error:
        return replace(given, reason=str(error))
    if calibration is not None:
        judged = [replace(each, scores=calibration.map.apply(each.scores)) for each in judged]
    everything, halved, as_given, *candidates = judged
    if "nms_iou" not in free:
        candidates = [as_given]
    n_images = len(everything.image_ids)
    given = replace(given, n_images=n_images)
    if not len(everything.scores):
        reason = f"it has no box in the {n_images} images looked at"
        return replace(given, verdict="left out", reason=reason)
    known = _known_classes(store, teacher, everything)
    objects = _objects(coco, everything.image_ids, known)
    given = replace(given, annotated=objects.sum() / n_images, classes=tuple(known.tolist()))
    if objects.sum() < MIN_OBJECTS:
        return replace(
            given,
            reason=f"{int(objects.sum())} annotated objects of its classes in the {n_images} "
            f"images that it saw, and it takes {MIN_OBJECTS} to judge by: taken as given",
        )
    n_objects = int(objects.sum())
    floor = rule.score_floor
    before = _taken(as_given, floor, rule.top_k, n_images, n_objects)
    counts = [int((each.scores >= np.float32(floor)).sum()) for each in (everything, halved)]
    given = replace(given, before=before, repeats=1 - counts[1] / max(1, counts[0]))
    best = _best_rule(rule, free, candidates, n_objects)
    after = _taken(
        candidates[NMS_IOUS.index(best.nms_iou) if "nms_iou" in free else 0],  # type: ignore[arg-type]
        best.score_floor,
        best.top_k,
        n_images,
        n_objects,
    )
    chance = _chance(store, teacher, coco, best, calibration, n_objects, max_images, seed)
    given = replace(given, best=best, after=after, chance=chance)
    if after.agreement < max(MIN_AGREEMENT, MIN_OVER_CHANCE * chance) and not keep:
        return replace(
            given,
            verdict="left out",
            reason=f"its boxes and the annotations agree by {after.agreement:.2f} at best, and by "
            f"{chance:.2f} where the annotations are those of other images: wrong image ids or "
            f"class map, or too weak a teacher (teachers.keep={teacher} takes it all the same)",
        )
    if before.agreement >= after.agreement - _TIE:
        return replace(given, verdict="as it is", after=before)
    changed = tuple(name for name in CHOICES if getattr(best, name) != getattr(rule, name))
    return replace(given, verdict="chosen", rule=best, chosen=changed)


def _chance(
    store: BoxStore,
    teacher: str,
    coco: CocoData,
    rule: Rule,
    calibration: Calibration | None,
    n_objects: int,
    max_images: int,
    seed: int,
) -> float:
    """The best agreement with annotations that are those of other images."""
    (judged,) = judge_each(
        store,
        teacher,
        coco,
        (rule.nms_iou,),
        top_k=_MOST_BOXES,
        elsewhere=True,
        max_images=max_images,
        seed=seed,
    )
    if calibration is not None:
        judged = replace(judged, scores=calibration.map.apply(judged.scores))
    return _agreement(judged, _best_floor(judged, n_objects), n_objects)


def _known_classes(store: BoxStore, teacher: str, judged: Judged) -> NDArray[np.int64]:
    """Ids of the classes that a teacher can name, by its class map, and did name."""
    named = np.unique(judged.category_ids).astype(np.int64)
    mapped = [value for value in store.record(teacher).class_map.values() if value is not None]
    return np.intersect1d(named, mapped) if mapped else named


def _objects(
    coco: CocoData, image_ids: NDArray[np.int64], classes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Annotated objects of some classes in each image, crowds left out."""
    counts = []
    for image_id in image_ids.tolist():
        truth = coco.annotations_of(image_id)
        counts.append(int((np.isin(truth.category_ids, classes) & ~truth.iscrowd).sum()))
    return np.array(counts, np.int64)


def _best_rule(
    rule: Rule, free: Collection[str], candidates: Sequence[Judged], n_objects: int
) -> Rule:
    """The settings that agree best; of suppressions as good as each other, the mildest."""
    floors = [
        _best_floor(each, n_objects) if "score_floor" in free else rule.score_floor
        for each in candidates
    ]
    agreements = [
        _agreement(each, floor, n_objects) for each, floor in zip(candidates, floors, strict=True)
    ]
    place = next(i for i, value in enumerate(agreements) if value >= max(agreements) - _TIE)
    found = replace(rule, score_floor=floors[place])
    if "nms_iou" in free:
        found = replace(found, nms_iou=NMS_IOUS[place])
    if "top_k" in free:
        found = replace(found, top_k=_enough(candidates[place], found.score_floor, rule.top_k))
    return found


def _best_floor(judged: Judged, n_objects: int) -> float:
    """The floor with the best P x R, rounded down to three digits."""
    order = np.argsort(-judged.scores, kind="stable")
    scores, hits = judged.scores[order], np.cumsum(judged.hits[order])
    # a floor takes all boxes of a score or none
    ends = np.flatnonzero(np.append(np.diff(scores) < 0, True))
    value = hits[ends].astype(np.float64) ** 2 / (ends + 1) / n_objects
    return math.floor(1000 * float(scores[ends[int(value.argmax())]])) / 1000


def _agreement(judged: Judged, floor: float, n_objects: int) -> float:
    kept = judged.scores >= np.float32(floor)
    hits = int(judged.hits[kept].sum())
    return float(hits / np.sqrt(max(1, int(kept.sum())) * n_objects))


def _ranks(judged: Judged, kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The place of every kept box among those of its image, from 0."""
    rows = judged.rows[kept]
    starts = np.searchsorted(rows, np.arange(len(judged.image_ids)))
    return np.arange(len(rows)) - starts[rows]


def _enough(judged: Judged, floor: float, most: int) -> int:
    """How many boxes an image keep nearly all right ones."""
    kept = judged.scores >= np.float32(floor)
    ranks = _ranks(judged, kept)[judged.hits[kept]]
    if not len(ranks):
        return most
    for count in TOP_KS:
        if count >= most or (ranks < count).mean() >= _KEPT:
            return min(count, most)
    return most


def _taken(judged: Judged, floor: float, top_k: int, n_images: int, n_objects: int) -> Taken:
    kept = judged.scores >= np.float32(floor)
    first = _ranks(judged, kept) < top_k
    n_boxes, n_hits = int(first.sum()), int(judged.hits[kept][first].sum())
    return Taken(n_boxes / n_images, n_hits / max(1, n_boxes), n_hits / n_objects)
