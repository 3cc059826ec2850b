"""The integrity report of a store: reads everything, names what is wrong and what to do."""

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from box_store.calibration.score_map import read_calibration
from box_store.coco.annotations import CocoData
from box_store.errors import DataError, FormatError, StoreError
from box_store.forms.opening import annotations_of
from box_store.identity import seen_by
from box_store.places.image_files import stored_name
from box_store.places.locations import Location, location, relative, size_of, staged
from box_store.selection.file import Selection
from box_store.store import schema
from box_store.store.parts import part_path, read_footer, read_part, unit_of
from box_store.store.records import TeacherRecord
from box_store.store.row_faults import box_faults, image_keys
from box_store.store.store import BoxStore

_REDO = "delete the unit's files under boxes and images and run the same teacher again"
_RERUN = "run the same teacher again"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a store.

    severity: `error`, or `note` for what harms nothing. file: relative to the store. where: the row
    or the image, empty if it is the whole file.
    """

    kind: str
    file: str
    where: str
    message: str
    remedy: str
    severity: Literal["error", "note"] = "error"


@dataclass
class Report:
    """What a check found. `counts`: teachers, units, images (rows), boxes, bytes."""

    path: Location
    problems: list[Problem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def ok(self) -> bool:
        """Whether there is no problem beyond notes."""
        return all(problem.severity == "note" for problem in self.problems)

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        return {
            "store": str(self.path),
            "ok": self.ok,
            "counts": dict(self.counts),
            "problems": [asdict(problem) for problem in self.problems],
        }


def check_store(path: Location, annotations: Path | None = None) -> Report:
    """Read every file of a store and report what is wrong; with a COCO file, images against it too.

    A damaged file is a line of the report, never an exception. Raises StoreError where there is no
    store at all, and DataError for faulty annotations.
    """
    report = Report(location(path))
    coco = None if annotations is None else annotations_of(annotations)
    try:
        store = BoxStore.open(path)
    except FormatError as error:
        report.problems.append(Problem("store", "store.json", "", str(error), "see the message"))
        return report
    _Checker(store, coco, report).run()
    return report


class _Checker:
    def __init__(self, store: BoxStore, coco: CocoData | None, report: Report) -> None:
        self._store = store
        self._coco = coco
        self._report = report
        self._images: dict[tuple[str, int], tuple[str, int, int, str]] = {}
        self._shown: frozenset[str] | None = None
        self._categories = np.array(store.categories.ids, np.int64)

    def run(self) -> None:
        root = self._store.path
        if self._coco is not None:
            self._shown = self._splits_of(self._coco)
        names: set[str] = set()
        for path in sorted((root / "teachers").glob("*.json")):
            if path.name.startswith("."):
                continue
            names.add(path.stem)
            self._report.counts["teachers"] += 1
            try:
                record = self._store.record(path.stem)
            except StoreError as error:
                self._add("record", path, "", str(error), "restore the file")
                continue
            self._teacher(record)
        for kind in schema.SCHEMAS:
            for folder in sorted((root / kind).glob("*")):
                name = folder.name.removeprefix("teacher=")
                if folder.is_dir() and (name not in names or name == folder.name):
                    self._add(
                        "orphan",
                        folder,
                        "",
                        "no teacher's record belongs to this folder",
                        "restore teachers/*.json or delete the folder",
                    )
        for path in sorted((root / "calibration").glob("*.json")):
            if path.name.startswith("."):
                continue
            try:
                read_calibration(self._store, path.stem)
            except StoreError as error:
                self._add("calibration", path, "", str(error), "delete it and calibrate again")
        for path in sorted(root.glob(".import-*")):
            self._note("leftover", path, "an interrupted import left this", "delete it")
        for path in sorted((root / "cache").glob("*.arrow")):
            try:
                Selection.open(path)
            except StoreError as error:
                self._add("cache", path, "", str(error), "delete it")

    def _splits_of(self, coco: CocoData) -> frozenset[str] | None:
        """The splits of the store that annotations are of, None for all."""
        try:
            return seen_by(self._store, coco).shown
        except (DataError, StoreError):
            # every image that is another one, and every damaged file, has a line of its own
            return None

    def _teacher(self, record: TeacherRecord) -> None:
        root = self._store.path
        present: dict[str, set[int]] = {}
        for kind in schema.SCHEMAS:
            present[kind] = set()
            for path in sorted(part_path(root, kind, record.name, 0).parent.glob("*")):
                if path.name.startswith("."):
                    continue
                unit = unit_of(path)
                self._report.counts["bytes"] += size_of(path)
                if unit is None:
                    self._add(
                        "foreign", path, "", "no unit is called so", "move it out of the store"
                    )
                elif unit >= record.n_units:
                    self._add(
                        "foreign",
                        path,
                        "",
                        f"the plan of {record.name} has {record.n_units} units",
                        "delete it",
                    )
                else:
                    present[kind].add(unit)
            for path in sorted(part_path(root, kind, record.name, 0).parent.glob(".*.tmp")):
                self._note(
                    "leftover", path, "an interrupted (or running) writer's file", "delete it"
                )
        for unit in sorted(present["images"] - present["boxes"]):
            self._add(
                "orphan",
                part_path(root, "images", record.name, unit),
                "",
                f"unit {unit} has no boxes file",
                _RERUN,
            )
        for unit in sorted(present["boxes"] - present["images"]):
            self._add(
                "orphan",
                part_path(root, "boxes", record.name, unit),
                "",
                f"unit {unit} was never committed",
                _RERUN,
            )
        missing = sorted(set(range(record.n_units)) - present["boxes"] - present["images"])
        if missing:
            self._add(
                "missing",
                root / "teachers" / f"{record.name}.json",
                "",
                f"{len(missing)} of {record.n_units} units are not done: {_ranges(missing)}",
                _RERUN,
            )
        seen: dict[tuple[str, int], int] = {}
        for unit in sorted(present["boxes"] & present["images"]):
            self._report.counts["units"] += 1
            self._unit(record, unit, seen)

    def _unit(self, record: TeacherRecord, unit: int, seen: dict[tuple[str, int], int]) -> None:
        paths = {
            kind: part_path(self._store.path, kind, record.name, unit) for kind in schema.SCHEMAS
        }
        tables: dict[str, pa.Table] = {}
        for kind, path in paths.items():
            try:
                tables[kind] = read_part(path, kind, record)
                footer = read_footer(path)
            except FormatError as error:
                self._add("damaged", path, "", str(error), _REDO)
                continue
            if footer.unit != unit:
                self._add("foreign", path, "", f"the file says it is unit {footer.unit}", _REDO)
            if kind == "images" and footer.boxes_sha256 != _sha256(paths["boxes"]):
                self._add(
                    "changed",
                    paths["boxes"],
                    "",
                    "it is not the file that was committed (its hash differs)",
                    _REDO,
                )
        if "images" in tables:
            self._image_rows(record, unit, tables["images"], paths["images"], seen)
        if len(tables) == 2:
            self._box_rows(tables["boxes"], tables["images"], paths)

    def _image_rows(
        self,
        record: TeacherRecord,
        unit: int,
        images: pa.Table,
        path: Location,
        seen: dict[tuple[str, int], int],
    ) -> None:
        self._report.counts["images"] += images.num_rows
        expected = len(record.unit_range(unit))
        if images.num_rows != expected:
            self._add("plan", path, "", f"{images.num_rows} images, planned {expected}", _REDO)
        for position, row in enumerate(images.to_pylist()):
            where = f"row {position} (image {row['image_id']})"
            key = (row["split"], row["image_id"])
            if key in seen:
                other = seen[key]
                self._add("duplicate", path, where, f"unit {other} has this image too", _REDO)
            seen[key] = unit
            self._report.counts["failed images"] += row["status"] != "ok"
            if row["width"] > 0:
                self._image(record.name, path, where, row)

    def _image(self, teacher: str, path: Location, where: str, row: dict[str, Any]) -> None:
        """One image row against the other teachers' and the data set's word on that image."""
        said = (row["file_name"], row["width"], row["height"])
        key = (row["split"], row["image_id"])
        *first, by = self._images.setdefault(key, (*said, teacher))
        if tuple(first) != said:
            self._add(
                "images",
                path,
                where,
                f"{_described(said)} here, {_described(tuple(first))} for teacher {by}",
                "one of the two saw other images under these ids: redo it under another name",
            )
        if self._coco is None or by != teacher:
            return
        if self._shown is not None and row["split"] not in self._shown:
            return
        info = self._coco.by_id.get(row["image_id"])
        listed = info and (stored_name(info.file_name), info.width, info.height)
        if info is None:
            self._add(
                "images",
                path,
                where,
                f"{self._coco.path.name} does not list this image",
                "check against the annotation file that the teacher was run with",
            )
        elif listed is not None and listed != said:
            self._add(
                "images",
                path,
                where,
                f"{_described(said)} here, {_described(listed)} in the annotations",
                "correct the annotation file: boxes are in pixels of the file on disk",
            )

    def _box_rows(self, boxes: pa.Table, images: pa.Table, paths: dict[str, Location]) -> None:
        self._report.counts["boxes"] += boxes.num_rows
        ids, box_ids = images["image_id"].to_numpy(), boxes["image_id"].to_numpy()
        keys, box_keys = image_keys(images, boxes)
        order = np.argsort(keys, kind="stable")
        place = np.searchsorted(keys[order], box_keys)
        known = place < len(keys)
        known[known] = keys[order][place[known]] == box_keys[known]
        self._rows("orphan", paths["boxes"], box_ids, ~known, "of an image its unit does not have")
        faults = box_faults(boxes, images.take(order), box_keys, place, known, self._categories)
        for what, bad in faults:
            self._rows("boxes", paths["boxes"], box_ids, bad, what)
        counted = np.bincount(place[known], minlength=len(ids))
        stated = images["n_boxes"].to_numpy()[order]
        for position in np.flatnonzero(counted != stated)[:1]:
            self._add(
                "count",
                paths["images"],
                f"image {ids[order][position]}",
                f"{stated[position]} boxes stated, {counted[position]} there",
                _REDO,
            )

    def _rows(
        self,
        kind: str,
        path: Location,
        box_ids: NDArray[np.int64],
        bad: NDArray[np.bool_],
        what: str,
    ) -> None:
        rows = np.flatnonzero(bad)
        if len(rows):
            where = f"row {rows[0]} (image {box_ids[rows[0]]})"
            plural = "boxes" if len(rows) > 1 else "box"
            self._add(kind, path, where, f"{len(rows)} {plural} {what}, the first here", _REDO)

    def _add(self, kind: str, path: Location, where: str, message: str, remedy: str) -> None:
        self._report.problems.append(Problem(kind, self._relative(path), where, message, remedy))

    def _note(self, kind: str, path: Location, message: str, remedy: str) -> None:
        self._report.problems.append(
            Problem(kind, self._relative(path), "", message, remedy, severity="note")
        )

    def _relative(self, path: Location) -> str:
        return relative(path, self._store.path)


def _sha256(path: Location) -> str:
    with staged(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _described(said: tuple[Any, ...]) -> str:
    return f"{said[0]} of {said[1]} x {said[2]}"


def _ranges(numbers: list[int]) -> str:
    """`0-3, 7` for 0, 1, 2, 3, 7; cut short after ten pieces."""
    pieces: list[list[int]] = []
    for number in numbers:
        if pieces and pieces[-1][1] == number - 1:
            pieces[-1][1] = number
        else:
            pieces.append([number, number])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in pieces[:10]]
    return ", ".join(texts) + (", ..." if len(pieces) > 10 else "")
