"""Score calibration of a teacher: a monotone map, kept in the store beside the raw scores.

store/calibration/<teacher>.json holds the map, what it was fitted on and how good it is. Boxes are
never changed: a selection applies the map when it is asked to. `box_store.calibration.fitting` fits
one. Needs numpy only.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from box_store.calibration.reliability import Band
from box_store.errors import FormatError, StoreError, UsageError
from box_store.places import files
from box_store.places.locations import Location
from box_store.store import schema
from box_store.store.records import check_teacher_name
from box_store.store.store import BoxStore

Method = Literal["isotonic", "temperature"]

# a score of 0 or 1 has no logit
_EPSILON = 1e-6


def logits(scores: NDArray[Any]) -> NDArray[np.float64]:
    """log(s / (1 - s)) with scores kept 1e-6 away from 0 and 1, float64."""
    inside = np.clip(np.asarray(scores, np.float64), _EPSILON, 1 - _EPSILON)
    return np.log(inside / (1 - inside))


def tempered(scores: NDArray[Any], temperature: float) -> NDArray[np.float32]:
    """sigmoid(logit(score) / temperature): above 1 it tempers an overconfident teacher."""
    # 1 / (1 + exp(-x)) without an overflow
    return np.exp(-np.logaddexp(0, -logits(scores) / temperature)).astype(np.float32)


@dataclass(frozen=True)
class ScoreMap:
    """A monotone map of scores to the chance of being right, both 0..1.

    `isotonic` interpolates between its knots (scores ascending, values not descending) and is
    constant outside them; `temperature` divides the logit.
    """

    method: Method
    knots: tuple[tuple[float, float], ...] = ()
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.method not in ("isotonic", "temperature"):
            raise UsageError(f"calibration is `isotonic` or `temperature`, got {self.method!r}")
        if not (np.isfinite(self.temperature) and self.temperature > 0):
            raise UsageError(f"a temperature is above 0, got {self.temperature}")
        if self.method == "isotonic":
            x, y = np.asarray(self.knots, np.float64).reshape(-1, 2).T
            inside = len(x) and (x >= 0).all() and (x <= 1).all() and y[0] >= 0 and y[-1] <= 1
            if not (inside and (np.diff(x) > 0).all() and (np.diff(y) >= 0).all()):
                raise UsageError("isotonic calibration needs ascending knots inside 0..1")

    def apply(self, scores: NDArray[Any]) -> NDArray[np.float32]:
        """The calibrated scores, float32 [N]."""
        if self.method == "temperature":
            return tempered(scores, self.temperature)
        x, y = np.asarray(self.knots, np.float64).T
        return np.interp(scores, x, y).astype(np.float32)


@dataclass(frozen=True)
class Quality:
    """How one set of scores fits the outcomes of its boxes.

    calibration_error: expected calibration error over ten bands. sure_error: of the bands from 0.3
    on. brier: Brier score. bands: as `reliability` makes them. None where there are no boxes.
    """

    calibration_error: float | None
    sure_error: float | None
    brier: float | None
    bands: list[Band]


@dataclass(frozen=True)
class Part:
    """Some of the images, and how raw and calibrated scores fit there.

    n_boxes: boxes that count (outside crowds); n_hits: those that are right.
    """

    n_images: int
    n_boxes: int
    n_hits: int
    raw: Quality
    calibrated: Quality


@dataclass(frozen=True)
class Calibration:
    """A teacher's score map and where it comes from.

    fingerprint: of the teacher's configuration. annotations, annotations_sha256: the ground truth.
    iou: from which a box counts as right. seed, held_out: how images were divided. fitted: the part
    that made the map; held: the part that did not see it, None where nothing was held out. nms_iou:
    of the class-wise suppression before the fit (None: none, as earlier versions fitted).
    """

    teacher: str
    fingerprint: str
    map: ScoreMap
    annotations: str
    annotations_sha256: str
    iou: float
    seed: int
    held_out: float
    fitted: Part
    held: Part | None
    nms_iou: float | None = None

    @property
    def key(self) -> str:
        """Hash of what the map does and to whom: two calibrations with one key give the same."""
        said = json.dumps([self.fingerprint, asdict(self.map)], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()

    def summary(self) -> dict[str, Any]:
        """What selections and runs record of it."""
        return {
            "key": self.key,
            "method": self.map.method,
            "annotations": self.annotations,
            "annotations_sha256": self.annotations_sha256,
        }

    def to_json(self) -> dict[str, Any]:
        """The document in the store."""
        return {"format_version": schema.FORMAT_VERSION, "key": self.key} | asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> "Calibration":
        """Read it back. Raises FormatError, naming `where`."""
        schema.check_version(values.get("format_version"), where)
        try:
            known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
            score_map = dict(known["map"])
            score_map["knots"] = tuple((float(x), float(y)) for x, y in score_map["knots"])
            held = known.get("held")
            found = cls(
                **known
                | {
                    "map": ScoreMap(**score_map),
                    "fitted": _part(known["fitted"]),
                    "held": None if held is None else _part(held),
                }
            )
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise FormatError(
                f"{where} is damaged: {error!r}. Delete it and run `teach-detr calibrate`"
            ) from error
        if found.key != values.get("key"):
            raise FormatError(
                f"{where} was changed by hand. Delete it and run `teach-detr calibrate`"
            )
        return found


def _part(values: Mapping[str, Any]) -> Part:
    return Part(**{**values, **{name: Quality(**values[name]) for name in ("raw", "calibrated")}})


def calibration_path(store: BoxStore, teacher: str) -> Location:
    """Where a teacher's calibration lies."""
    return store.path / "calibration" / f"{check_teacher_name(teacher)}.json"


def write_calibration(store: BoxStore, calibration: Calibration) -> None:
    """Keep a calibration, in the place of an earlier one, as a whole. Raises StoreError."""
    path = calibration_path(store, calibration.teacher)
    data = json.dumps(calibration.to_json(), indent=1, ensure_ascii=False) + "\n"
    try:
        files.make_folder(path.parent)
        with files.replacing(path) as file:
            file.write(data.encode())
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def read_calibration(store: BoxStore, teacher: str) -> Calibration | None:
    """A teacher's calibration, None where it has none.

    Raises FormatError for a damaged file, and for one of another configuration of that name.
    """
    path = calibration_path(store, teacher)
    if not path.exists():
        return None
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{path} is damaged, no valid JSON: {error}. Delete it and run `teach-detr calibrate`"
        ) from error
    if not isinstance(document, dict):
        raise FormatError(f"{path} is damaged: expected an object. Delete it")
    found = Calibration.from_json(document, str(path))
    if found.fingerprint != store.record(teacher).fingerprint:
        raise FormatError(
            f"{path} was fitted to another configuration of {teacher}: run `teach-detr calibrate "
            f"{store.path} --teacher {teacher} --annotations FILE` again"
        )
    return found


def need_calibration(store: BoxStore, teacher: str) -> Calibration:
    """A teacher's calibration. Raises UsageError, with the command to run, where it has none."""
    found = read_calibration(store, teacher)
    if found is None:
        raise UsageError(
            f"teacher {teacher} of {store.path} has no calibration, but calibrated scores were "
            f"asked for: run `teach-detr calibrate {store.path} --teacher {teacher} --annotations "
            "FILE` with annotated images that it saw"
        )
    return found
