"""`Boxes`: the detections of one image, the only currency between modules."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from box_store.errors import DataError, UsageError

# pairs whose overlap is computed at a time: bounds memory, and stays in the cache
_NMS_PAIRS = 1 << 17


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Detections of one image.

    Inputs may be anything numpy can convert; they are stored with the types below.

    boxes_xyxy: float32 [N, 4], corners x1, y1, x2, y2 in pixels of the original image as stored on
        disk (no EXIF rotation), x to the right, y down, the top left corner of the image is 0, 0.
    scores: float32 [N] in 0..1.
    class_ids: int32 [N]. Teacher class indices inside an adapter, data-set category ids elsewhere.
    width, height: size of the image in pixels.

    Raises DataError for shapes that do not fit together, values that are not finite, and scores
    outside 0..1. Boxes may lie outside the image or be inverted until `clipped` is called.
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    width: int
    height: int

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes_xyxy, dtype=np.float32)
        scores = np.asarray(self.scores, dtype=np.float32)
        class_ids = _as_int32(self.class_ids)
        if boxes.size == 0:
            boxes = boxes.reshape(-1, 4) if boxes.ndim == 2 else boxes.reshape(0, 4)
        n = len(boxes)
        if (
            boxes.ndim != 2
            or boxes.shape[1] != 4
            or scores.shape != (n,)
            or class_ids.shape != (n,)
        ):
            raise DataError(
                "boxes, scores and class ids do not fit together: expected [N, 4], [N], [N]; got "
                f"{list(boxes.shape)}, {list(scores.shape)} and {list(class_ids.shape)}"
            )
        if not np.isfinite(boxes).all():
            raise DataError(f"box coordinates must be finite; row {_first_bad(boxes)} is not")
        if n and not (scores.min() >= 0 and scores.max() <= 1):
            bad = int(np.flatnonzero(~((scores >= 0) & (scores <= 1)))[0])
            raise DataError(f"scores must lie in 0..1; row {bad} has {scores[bad]}")
        if self.width < 1 or self.height < 1:
            raise DataError(f"an image has at least 1 x 1 pixels, got {self.width} x {self.height}")
        object.__setattr__(self, "boxes_xyxy", boxes)
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "class_ids", class_ids)
        object.__setattr__(self, "width", int(self.width))
        object.__setattr__(self, "height", int(self.height))

    @classmethod
    def empty(cls, width: int, height: int) -> "Boxes":
        """No detection in an image of that size."""
        return cls(
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.float32),
            np.zeros(0, np.int32),
            width,
            height,
        )

    @classmethod
    def joined(cls, parts: Sequence["Boxes"]) -> "Boxes":
        """All boxes of several sets of one image, in order. At least one set, all of one size."""
        return cls(
            np.concatenate([part.boxes_xyxy for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.class_ids for part in parts]),
            parts[0].width,
            parts[0].height,
        )

    @classmethod
    def unchecked(
        cls,
        boxes_xyxy: NDArray[np.float32],
        scores: NDArray[np.float32],
        class_ids: NDArray[np.int32],
        width: int,
        height: int,
    ) -> "Boxes":
        """For arrays that were checked before they were stored: no conversion, no validation."""
        boxes = object.__new__(cls)
        object.__setattr__(boxes, "boxes_xyxy", boxes_xyxy)
        object.__setattr__(boxes, "scores", scores)
        object.__setattr__(boxes, "class_ids", class_ids)
        object.__setattr__(boxes, "width", width)
        object.__setattr__(boxes, "height", height)
        return boxes

    def __len__(self) -> int:
        return len(self.scores)

    def __eq__(self, other: object) -> bool:
        """Equal sizes and equal arrays, in the same order."""
        if not isinstance(other, Boxes):
            return NotImplemented
        return (
            (self.width, self.height) == (other.width, other.height)
            and np.array_equal(self.boxes_xyxy, other.boxes_xyxy)
            and np.array_equal(self.scores, other.scores)
            and np.array_equal(self.class_ids, other.class_ids)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def areas(self) -> NDArray[np.float32]:
        """float32 [N], square pixels; 0 for an inverted box."""
        sides = np.maximum(self.boxes_xyxy[:, 2:] - self.boxes_xyxy[:, :2], 0)
        return sides[:, 0] * sides[:, 1]

    def to_supervision(self, class_names: Sequence[str] | None = None) -> Any:
        """A `supervision.Detections`: the same corners, scores and class ids.

        class_names: by class id, for what draws labels (`data["class_name"]`).

        Raises UsageError if supervision is not installed, or a class id has no name.
        """
        try:
            import supervision
        except ImportError:
            raise UsageError(
                "Boxes.to_supervision needs the package supervision: "
                "pip install 'teach-detr[supervision]'"
            ) from None
        data = {}
        if class_names is not None:
            if len(self) and not 0 <= self.class_ids.min() <= self.class_ids.max() < len(
                class_names
            ):
                raise UsageError(
                    f"class ids reach from {self.class_ids.min()} to {self.class_ids.max()}, and "
                    f"there are {len(class_names)} class names: what a predictor returns are "
                    "indices into predictor.class_names"
                )
            data["class_name"] = np.array([class_names[each] for each in self.class_ids], str)
        return supervision.Detections(
            xyxy=self.boxes_xyxy.copy(),
            confidence=self.scores.copy(),
            class_id=self.class_ids.astype(int),
            data=data,
        )

    def take(self, index: ArrayLike) -> "Boxes":
        """The rows that an integer or boolean index names, in its order."""
        rows = np.asarray(index)
        if rows.size == 0:
            rows = rows.astype(np.int64)
        return Boxes(
            self.boxes_xyxy[rows], self.scores[rows], self.class_ids[rows], self.width, self.height
        )

    def clipped(self) -> "Boxes":
        """Boxes cut to the image; those without any area left are dropped."""
        limits = np.array([self.width, self.height, self.width, self.height], np.float32)
        boxes = np.clip(self.boxes_xyxy, 0, limits)
        keep = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        return Boxes(boxes[keep], self.scores[keep], self.class_ids[keep], self.width, self.height)

    def above(self, score: float) -> "Boxes":
        """Boxes whose score is at least `score`."""
        return self.take(self.scores >= np.float32(score))

    def sorted(self) -> "Boxes":
        """Best score first; equal scores keep their order."""
        return self.take(np.argsort(-self.scores, kind="stable"))

    def top_k(self, k: int) -> "Boxes":
        """The `k` best, best first."""
        return self.take(np.argsort(-self.scores, kind="stable")[:k])

    def nms(self, iou: float, class_wise: bool = True) -> "Boxes":
        """Greedy non-maximum suppression: what overlaps a better box by more than `iou` goes.

        Returned best first. With `class_wise` only boxes of one class suppress each other.
        """
        ordered = self.sorted()
        return ordered.take(
            nms_keep(ordered.boxes_xyxy, ordered.class_ids if class_wise else None, iou)
        )


def to_xyxy(boxes_xywh: ArrayLike) -> NDArray[Any]:
    """Corners [N, 4] of boxes [N, 4] (also an empty list) given by a corner and two sides."""
    boxes = np.asarray(boxes_xywh)
    boxes = boxes.reshape(-1, 4) if boxes.size else np.zeros((0, 4), boxes.dtype)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def to_xywh(boxes_xyxy: ArrayLike) -> NDArray[Any]:
    """The left top corner and the two sides, [N, 4], as COCO has them, of boxes [N, 4]."""
    boxes = np.asarray(boxes_xyxy)
    boxes = boxes.reshape(-1, 4) if boxes.size else np.zeros((0, 4), boxes.dtype)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def iou_of(a_xyxy: NDArray[Any], b_xyxy: NDArray[Any]) -> NDArray[np.float64]:
    """Intersection over union, float64, of boxes [..., 4] that broadcast; 0 where both have no
    area."""
    shared, area_a, area_b = _shared(a_xyxy, b_xyxy)
    union = area_a + area_b - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def share_inside(a_xyxy: NDArray[Any], b_xyxy: NDArray[Any]) -> NDArray[np.float64]:
    """The share, float64, of the area of boxes `a` [..., 4] that lies in boxes `b`, which
    broadcast; 0 where `a` has none."""
    shared, area, _ = _shared(a_xyxy, b_xyxy)
    return np.divide(shared, area, out=np.zeros_like(shared), where=area > 0)


def _shared(a_xyxy: NDArray[Any], b_xyxy: NDArray[Any]) -> tuple[NDArray[np.float64], ...]:
    """The area of the intersection and those of both, the latter not broadcast."""
    a, b = (
        [np.asarray(boxes, np.float64)[..., side] for side in range(4)]
        for boxes in (a_xyxy, b_xyxy)
    )
    inter = np.maximum(np.minimum(a[2], b[2]) - np.maximum(a[0], b[0]), 0)
    inter *= np.maximum(np.minimum(a[3], b[3]) - np.maximum(a[1], b[1]), 0)
    area_a, area_b = (np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0) for x1, y1, x2, y2 in (a, b))
    return inter, area_a, area_b


def pairwise_iou(a_xyxy: NDArray[Any], b_xyxy: NDArray[Any]) -> NDArray[np.float64]:
    """Intersection over union of every pair, float64 [N, M]; 0 where both boxes have no area."""
    return iou_of(np.asarray(a_xyxy)[:, None], np.asarray(b_xyxy)[None])


def nms_keep(
    boxes_xyxy: NDArray[np.float32],
    class_ids: NDArray[np.int32] | None,
    iou: float,
    images: NDArray[np.integer] | None = None,
) -> NDArray[np.int64]:
    """Rows that survive greedy suppression of rows already in order of preference, ascending.

    boxes_xyxy [N, 4]; class_ids [N], or None to let all classes compete; images [N], the image of
    each row, where there are several: many are suppressed in one go.
    """
    n = len(boxes_xyxy)
    keys = [key for key in (class_ids, images) if key is not None]
    # stable: rivals follow one another in order of preference
    order = np.lexsort(keys) if keys else np.arange(n)
    boxes = np.asarray(boxes_xyxy, np.float64)[order]
    ends = _ends_of_runs([key[order] for key in keys], n)
    worse = ends - np.arange(n) - 1
    bounds = np.cumsum(worse)
    alive = np.ones(n, bool)
    start = 0
    while start < n:
        enough = bounds[start] - worse[start] + _NMS_PAIRS
        stop = max(start + 1, int(bounds.searchsorted(enough)))
        rows = start + np.flatnonzero(alive[start:stop])
        first = np.repeat(rows, worse[rows])
        ranks = np.arange(len(first)) - np.repeat(np.cumsum(worse[rows]) - worse[rows], worse[rows])
        _suppress(*_overlapping(boxes, first, first + 1 + ranks, iou), alive)
        start = stop
    return np.sort(order[alive])


def _ends_of_runs(keys: list[NDArray[Any]], n: int) -> NDArray[np.int64]:
    """For each of N rows the end of the rows around it that have the same keys, int64 [N]."""
    new = np.zeros(max(n - 1, 0), bool)
    for key in keys:
        new |= key[1:] != key[:-1]
    ends = np.append(np.flatnonzero(new) + 1, n)
    return np.repeat(ends, np.diff(ends, prepend=0))


def _overlapping(
    boxes: NDArray[np.float64], first: NDArray[np.int64], second: NDArray[np.int64], iou: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs of boxes [N, 4] that overlap by more than `iou`, 0 or more."""
    for low, high in ((0, 2), (1, 3)):
        # most pairs do not touch, and IoU is what costs
        touch = boxes[first, low] < boxes[second, high]
        touch &= boxes[second, low] < boxes[first, high]
        first, second = first[touch], second[touch]
    conflict = iou_of(boxes[first], boxes[second]) > iou
    return first[conflict], second[conflict]


def _suppress(
    first: NDArray[np.int64], second: NDArray[np.int64], alive: NDArray[np.bool_]
) -> None:
    """Mark as dead what greedy suppression removes, given all conflicts of the rows in `first`.

    A row that no undecided row may suppress is kept, and all rows behind it in a conflict go; what
    is left has fewer conflicts, until there is none.
    """
    doubtful = np.zeros(len(alive), bool)
    while len(first):
        undecided = alive[first] & alive[second]
        first, second = first[undecided], second[undecided]
        doubtful[second] = True
        kept = ~doubtful[first]
        doubtful[second] = False
        alive[second[kept]] = False
        first, second = first[~kept], second[~kept]


def _as_int32(values: ArrayLike) -> NDArray[np.int32]:
    raw = np.asarray(values)
    if raw.size == 0:
        return np.zeros(raw.shape if raw.ndim == 1 else 0, np.int32)
    whole = raw.dtype.kind in "iu" or (raw.dtype.kind == "f" and bool((raw == np.trunc(raw)).all()))
    if not whole:
        raise DataError(f"class ids must be whole numbers, got {raw.dtype} values")
    if raw.max() > np.iinfo(np.int32).max or raw.min() < np.iinfo(np.int32).min:
        raise DataError("class ids must fit 32 bits")
    return raw.astype(np.int32, copy=False)


def _first_bad(boxes: NDArray[np.float32]) -> str:
    row = int(np.flatnonzero(~np.isfinite(boxes).all(axis=1))[0])
    return f"{row} ({', '.join(str(value) for value in boxes[row])})"
