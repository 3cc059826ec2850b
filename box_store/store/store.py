"""`BoxStore`: a folder that holds what teachers saw.

store/
  store.json                                 format version, box frame, categories, data set
  teachers/<name>.json                       a teacher's configuration, its fingerprint, its plan
  calibration/<name>.json                    a teacher's score map (`box_store.calibration`)
  boxes/teacher=<name>/part-00012.parquet    the boxes of unit 12
  images/teacher=<name>/part-00012.parquet   the images of unit 12: the unit's commit record
  cache/                                     selections for the trainer; may be deleted any time
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from box_store.categories import Categories
from box_store.errors import (
    DataError,
    FingerprintMismatch,
    FormatError,
    StoreError,
    UnknownTeacher,
    nearest,
)
from box_store.places import files
from box_store.places.locations import Location, location
from box_store.store import schema
from box_store.store.parts import part_path, read_footer, unit_of
from box_store.store.records import DatasetInfo, ImageRow, TeacherRecord, check_teacher_name
from box_store.store.writer import write_unit

__all__ = ["BoxStore", "DatasetInfo", "ImageRow", "TeacherRecord"]


@dataclass(frozen=True)
class BoxStore:
    """A box store at a path or URL. Get one with `create`, `open` or `open_or_create`.

    Holds nothing open and caches nothing that may change: safe to pickle, to fork and to use from
    several processes at once.
    """

    path: Location
    categories: Categories
    dataset: DatasetInfo
    shown: frozenset[str] | None = None
    """the splits whose images and boxes are read, as they are written in the store; None for all"""

    @classmethod
    def create(cls, path: Location, categories: Categories, dataset: DatasetInfo) -> "BoxStore":
        """Make a store in a new or empty folder. Raises StoreError if one is there already."""
        path = location(path)
        if path.exists() and not path.is_dir():
            raise StoreError(f"cannot make a box store at {path}: it is a file")
        document = {
            "format": "teach-detr box store",
            "format_version": schema.FORMAT_VERSION,
            "box_frame": schema.BOX_FRAME,
            "dataset": asdict(dataset),
            "categories": categories.to_json(),
        }
        try:
            files.make_folder(path)
            created = files.create_exclusive(path / "store.json", _as_json(document))
        except OSError as error:
            raise StoreError(f"cannot make a box store at {path}: {error.strerror}") from error
        if not created:
            raise StoreError(
                f"there is a box store at {path} already: open it, or choose another path"
            )
        return cls(path, categories, dataset)

    @classmethod
    def open(cls, path: Location) -> "BoxStore":
        """Open a store. Raises StoreError where there is none, FormatError for a newer one."""
        path = location(path)
        if not (path / "store.json").exists():
            found = "the folder has no store.json" if path.is_dir() else "there is no such folder"
            raise StoreError(
                f"no box store at {path}: {found}. `teacher-infer run --store` makes one"
            )
        document = _read_json(path / "store.json")
        schema.check_version(document.get("format_version"), f"the box store {path}")
        try:
            categories = Categories.from_coco(document["categories"])
            dataset = DatasetInfo(**document["dataset"])
        except (KeyError, TypeError, DataError) as error:
            raise FormatError(f"{path / 'store.json'} is damaged: {error}") from error
        return cls(path, categories, dataset)

    @classmethod
    def open_or_create(
        cls, path: Location, categories: Categories, dataset: DatasetInfo
    ) -> "BoxStore":
        """Open the store at `path`, or make one; several processes may do so at once.

        A store may hold several splits of one data set, so only the category table must agree.
        Raises StoreError where it does not.
        """
        path = location(path)
        if not (path / "store.json").exists():
            try:
                return cls.create(path, categories, dataset)
            except StoreError:
                # another process was faster, or it cannot be made at all
                if not (path / "store.json").exists():
                    raise
        store = cls.open(path)
        sides = ("in the store", "in the data set")
        if differing := store.categories.differences(categories, *sides):
            raise StoreError(
                f"the box store {path} has another category table: {len(store.categories)} "
                f"categories, the data set has {len(categories)} ({differing}). "
                "Use another --store for this data set"
            )
        return store

    def showing(self, splits: Iterable[str]) -> "BoxStore":
        """The same store, of which only some splits are read."""
        return replace(self, shown=frozenset(splits))

    def check_categories(self, categories: Categories, where: object) -> None:
        """Raise DataError unless annotations `where` have the categories of this store."""
        if differing := categories.differences(self.categories):
            raise DataError(
                f"{where} has other categories than the store {self.path} ({differing}): expected "
                "the data set that was labelled"
            )

    @property
    def teachers(self) -> dict[str, TeacherRecord]:
        """Every teacher's record by name, in alphabetical order."""
        folder = self.path / "teachers"
        names = sorted(path.stem for path in folder.glob("*.json") if not path.name.startswith("."))
        return {name: self.record(name) for name in names}

    def record(self, name: str) -> TeacherRecord:
        """A teacher's record. Raises UnknownTeacher, suggesting the nearest name."""
        path = self._record_path(name)
        if not path.exists():
            known = sorted(other.stem for other in path.parent.glob("*.json"))
            listed = f"it has {', '.join(known)}" if known else "it has none yet"
            raise UnknownTeacher(
                f"the box store {self.path} has no teacher {name!r}; "
                f"{listed}.{nearest(name, known)}"
            )
        document = _read_json(path)
        schema.check_version(document.get("format_version"), str(path))
        record = TeacherRecord.from_json(document, str(path))
        if record.name != name or record.fingerprint != document.get("fingerprint"):
            raise FormatError(
                f"{path} was changed by hand: its fingerprint is {record.fingerprint[:12]}, it "
                f"says {str(document.get('fingerprint'))[:12]}. A changed configuration needs a "
                "new name"
            )
        return record

    def register(self, record: TeacherRecord) -> TeacherRecord:
        """Enter a teacher, or find it entered already; returns the record in the store.

        Of several processes that register one name at once, one wins and the others compare.
        Raises FingerprintMismatch if the name holds another configuration.
        """
        path = self._record_path(record.name)
        if not path.exists():
            self._check_free(record)
            document = {"format_version": schema.FORMAT_VERSION, "fingerprint": record.fingerprint}
            try:
                files.make_folder(path.parent)
                created = files.create_exclusive(path, _as_json(document | record.to_json()))
            except OSError as error:
                raise StoreError(
                    f"cannot enter teacher {record.name} in {self.path}: {error.strerror}"
                ) from error
            if created:
                return record
        stored = self.record(record.name)
        if stored.fingerprint != record.fingerprint:
            raise FingerprintMismatch(_mismatch(stored, record))
        return stored

    def units_done(self, name: str) -> set[int]:
        """Numbers of the committed units of a teacher: those that have both files."""
        self.record(name)
        return self._parts(name, "images") & self._parts(name, "boxes")

    def write_unit(
        self, name: str, unit: int, rows: Sequence[ImageRow], *, replace: bool = False
    ) -> bool:
        """Commit a unit, exactly once: False if it was committed already (nothing is written).

        With `replace` (to redo failed images) it takes the committed unit's place.
        `rows` has one row for each image of the unit, in any order. Boxes are cut to the image,
        rounded (1/16 px, score 1/4096) and ranked. Raises StoreError; what was committed stays.
        """
        record = self.record(name)
        return write_unit(self.path, record, self.categories, unit, rows, replace=replace)

    def _record_path(self, name: str) -> Location:
        return self.path / "teachers" / f"{check_teacher_name(name)}.json"

    def _parts(self, name: str, kind: str) -> set[int]:
        folder = part_path(self.path, kind, name, 0).parent
        if not folder.is_dir():
            return set()
        return {unit for path in folder.iterdir() if (unit := unit_of(path)) is not None}

    def _check_free(self, record: TeacherRecord) -> None:
        """A new name must not differ from another in case only, nor inherit foreign parts."""
        for path in (self.path / "teachers").glob("*.json"):
            if path.stem != record.name and path.stem.lower() == record.name.lower():
                raise StoreError(
                    f"teacher {record.name!r} and the store's {path.stem!r} differ in case only, "
                    "which some file systems cannot tell apart: choose another name"
                )
        for kind in ("images", "boxes"):
            for unit in sorted(self._parts(record.name, kind)):
                path = part_path(self.path, kind, record.name, unit)
                found = read_footer(path).fingerprint
                if found != record.fingerprint:
                    raise FingerprintMismatch(
                        f"{path} holds {kind} of another configuration of {record.name} "
                        f"(fingerprint {found[:12]}, asked for {record.fingerprint[:12]}) whose "
                        f"record is gone. Delete the folders {path.parent.name} under boxes and "
                        "images, or choose another name"
                    )


def _mismatch(stored: TeacherRecord, asked: TeacherRecord) -> str:
    lines = [
        f"  {key}: {_short(stored.value(key))} in the store, {_short(asked.value(key))} asked for"
        for key in stored.differing_fields(asked)
    ]
    return (
        f"teacher {stored.name!r} is in the store with another configuration (fingerprint "
        f"{stored.fingerprint[:12]}, asked for {asked.fingerprint[:12]}). They differ in:\n"
        + "\n".join(lines)
        + "\nGive the new configuration a name of its own."
    )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 70 else text[:67] + "..."


def _as_json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def _read_json(path: Location) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is damaged, no valid JSON: {error}") from error
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    if not isinstance(document, dict):
        raise FormatError(f"{path} is damaged: expected an object, got {type(document).__name__}")
    return document
