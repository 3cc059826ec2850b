"""Selecting what a trainer reads from a store: which teachers, floors, limits, scores, fusion.

The result is a file named by a hash of the store's content and of what was asked for, so a changed
store never serves stale boxes and asking twice costs a hash. Needs pyarrow and numpy only.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from box_store.calibration.score_map import need_calibration
from box_store.errors import UnknownTeacher, UsageError, nearest
from box_store.fuse import FusionConfig
from box_store.places.locations import RemotePath, cache_folder, staged
from box_store.selection.file import Selection, write_selection
from box_store.selection.fusing import fused
from box_store.selection.rows import Rule, filtered
from box_store.store.parts import part_path
from box_store.store.reader import known_images
from box_store.store.store import BoxStore

__all__ = ["FUSED", "Selection", "SelectionSpec", "TeacherFilter", "select"]

FUSED = "fused"

# part of a selection's name: other where a selection of the same files would come out otherwise.
# Runs that go on ask for the selection that they began with
_RULES = "1.0"


@dataclass(frozen=True, slots=True)
class TeacherFilter:
    """What one teacher does differently from the rest of a selection; None takes the common value.

    nms_iou: "off" suppresses nothing, whatever the others do. temperature: scores become
    sigmoid(logit(score) / temperature), after the floor and the top-k; above 1 it tempers an
    overconfident teacher. calibrated: see `SelectionSpec`. class_floors: in place of the floor for
    classes by name, beside those of the selection and before them.
    """

    score_floor: float | None = None
    class_floors: Mapping[str, float] = field(default_factory=dict)
    top_k: int | None = None
    nms_iou: float | Literal["off"] | None = None
    temperature: float | None = None
    calibrated: bool | None = None


@dataclass(frozen=True)
class SelectionSpec:
    """What to select.

    teachers: names, None for all. Of each: boxes scoring at least `score_floor`, or what
    `class_floors` has in its place for their class, by name; after class-wise suppression at
    `nms_iou` (None: none) the `top_k` best. calibrated: scores are those of the teacher's
    calibration in the store, and the floor is a floor of these; the order of boxes stays that of
    the raw scores. licences, deny_licences: patterns such as `AGPL*` (case does not matter) of
    teachers to take, where there are any, and to leave out. combine: `parallel` keeps a box set a
    teacher, `fused` merges them into one as `fusion` says.
    """

    teachers: tuple[str, ...] | None = None
    score_floor: float = 0.05
    class_floors: Mapping[str, float] = field(default_factory=dict)
    top_k: int = 100
    nms_iou: float | None = None
    calibrated: bool = False
    licences: tuple[str, ...] = ()
    deny_licences: tuple[str, ...] = ()
    combine: Literal["parallel", "fused"] = "parallel"
    fusion: FusionConfig = field(default_factory=FusionConfig)
    per_teacher: Mapping[str, TeacherFilter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.combine not in ("parallel", "fused"):
            raise UsageError(f"combine is `parallel` or `fused`, got {self.combine!r}")
        if self.teachers is not None and len(set(self.teachers)) < len(self.teachers):
            raise UsageError(f"a teacher is named twice: {', '.join(self.teachers)}")
        for name in ("", *self.per_teacher):
            rule = self.rule(name)
            where = f" of teacher {name}" if name else ""
            if not 0 <= rule.score_floor <= 1:
                raise UsageError(f"score_floor{where} lies in 0..1, got {rule.score_floor}")
            for category, floor in rule.class_floors:
                if not 0 <= floor <= 1:
                    raise UsageError(f"class_floors.{category}{where} lies in 0..1, got {floor}")
            if rule.top_k < 1:
                raise UsageError(f"top_k{where} is at least 1, got {rule.top_k}")
            if rule.nms_iou is not None and not 0 <= rule.nms_iou <= 1:
                raise UsageError(f"nms_iou{where} lies in 0..1, got {rule.nms_iou}")
            if not rule.temperature > 0:
                raise UsageError(f"temperature{where} is above 0, got {rule.temperature}")
            if rule.calibrated and rule.temperature != 1:
                raise UsageError(
                    f"calibrated scores{where} take no temperature, got {rule.temperature}: leave "
                    "out one of the two"
                )

    def rule(self, teacher: str) -> "Rule":
        """The common values with a teacher's own in their place."""
        own = self.per_teacher.get(teacher, TeacherFilter())
        return Rule(
            self.score_floor if own.score_floor is None else own.score_floor,
            self.top_k if own.top_k is None else own.top_k,
            self.nms_iou if own.nms_iou is None else no_off(own.nms_iou),
            1.0 if own.temperature is None else own.temperature,
            self.calibrated if own.calibrated is None else own.calibrated,
            tuple(sorted((dict(self.class_floors) | dict(own.class_floors)).items())),
        )

    def admits(self, licence: str) -> bool:
        """Whether a teacher of that licence may be selected."""
        return licence_admitted(licence, self.licences, self.deny_licences)


def no_off(nms_iou: float | Literal["off"] | None) -> float | None:
    """The IoU of a suppression, None where there is none."""
    return None if nms_iou == "off" else nms_iou


def licence_admitted(licence: str, allowed: Sequence[str], denied: Sequence[str]) -> bool:
    """Whether a licence is like one of `allowed`, where there are any, and like none of `denied`.

    Patterns as in a shell; case does not matter.
    """

    def is_like(patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(licence.lower(), pattern.lower()) for pattern in patterns)

    return (not allowed or is_like(allowed)) and not is_like(denied)


def select(store: BoxStore, spec: SelectionSpec, cache: Path | None = None) -> Path:
    """Write the selection, unless it is there already, and return its file for `Selection.open`.

    cache: the folder for it; by default `cache` inside the store, for a store at a URL the user's
    cache. Raises UnknownTeacher, UsageError (no teacher left, one asked for by name whose licence
    is not admitted, or one without the calibration that was asked for), StoreError, and DataError
    for a store of splits whose image ids collide (`identity.seen_by`, `BoxStore.showing`).
    """
    names = chosen_teachers(store, spec)
    calibrations = {
        name: need_calibration(store, name) for name in names if spec.rule(name).calibrated
    }
    content = {name: _content(store, name) for name in names}
    asked: dict[str, Any] = {
        "rules": {name: spec.rule(name).identity() for name in names},
        "combine": spec.combine,
    }
    if calibrations:
        asked["calibrations"] = {name: found.key for name, found in calibrations.items()}
    if store.shown is not None:
        asked["splits"] = sorted(store.shown)
    if spec.combine == "fused":
        asked["fusion"] = asdict(spec.fusion) | {
            "weights": {name: spec.fusion.weight(name) for name in names}
        }
    identity = json.dumps([_RULES, content, asked], sort_keys=True)
    key = hashlib.sha256(identity.encode()).hexdigest()
    path = (_cache_of(store) if cache is None else Path(cache)) / f"selection-{key[:32]}.arrow"
    if path.exists():
        return path
    # before any box is read: an id must be one image
    names_of = {image.id: image.file_name for image in known_images(store)}
    metadata = {
        "teachers": [FUSED] if spec.combine == "fused" else list(names),
        "sources": {
            name: {"fingerprint": record.fingerprint, "licence": record.licence}
            for name, record in ((name, store.record(name)) for name in names)
        },
        "calibrations": {name: found.summary() for name, found in calibrations.items()},
        "asked": asked,
        "key": key,
        "splits": sorted(store.shown or ()),
    }
    each = (
        (name, filtered(store, name, spec.rule(name), calibrations.get(name))) for name in names
    )
    if spec.combine == "fused":
        each = iter([(FUSED, fused(dict(each), spec.fusion))])
    write_selection(path, metadata, each, names_of)
    return path


def _cache_of(store: BoxStore) -> Path:
    if isinstance(store.path, RemotePath):
        return cache_folder() / "selections"
    return store.path / "cache"


def chosen_teachers(store: BoxStore, spec: SelectionSpec) -> tuple[str, ...]:
    """The teachers of a selection. Raises UnknownTeacher, UsageError as `select` does."""
    records = store.teachers
    for name in (*(spec.teachers or ()), *spec.per_teacher):
        if name not in records:
            known = f"it has {', '.join(records)}" if records else "it has none yet"
            raise UnknownTeacher(
                f"the box store {store.path} has no teacher {name!r}; "
                f"{known}.{nearest(name, records)}"
            )
    refused = {
        name: record.licence for name, record in records.items() if not spec.admits(record.licence)
    }
    for name in spec.teachers or ():
        if name in refused:
            raise UsageError(
                f"teacher {name} has the licence {refused[name]}, which is not admitted: leave out "
                "the teacher, or change the patterns of licences"
            )
    names = tuple(spec.teachers or (name for name in records if name not in refused))
    if not names:
        raise UsageError(
            f"no teacher of {store.path} is left to select"
            + (
                f": no licence is admitted ({', '.join(sorted(set(refused.values())))})"
                if refused
                else ": it has none yet"
            )
        )
    return names


def _content(store: BoxStore, name: str) -> dict[str, Any]:
    """What identifies a teacher's boxes: an images file carries the hash of its boxes file."""
    units = {
        str(unit): hashlib.sha256(
            staged(part_path(store.path, "images", name, unit)).read_bytes()
        ).hexdigest()
        for unit in sorted(store.units_done(name))
    }
    return {"fingerprint": store.record(name).fingerprint, "units": units}
