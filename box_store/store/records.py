"""What a store knows about its teachers and its data set, as immutable records."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from box_store.boxes import Boxes
from box_store.errors import FormatError, StoreError, UsageError

_T = TypeVar("_T")
# what every file system, SQL shell and command line takes without quoting
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_STATUS = re.compile(r"[a-z][a-z0-9_-]{0,39}")
# words that commands and views use for something else
_RESERVED = frozenset({"all", "fused", "none", "truth"})


def check_teacher_name(name: str) -> str:
    """`name` itself, if it can be a file name everywhere. Raises UsageError otherwise."""
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise UsageError(
            f"{name!r} cannot name a teacher: use up to 80 letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit"
        )
    if name.lower() in _RESERVED:
        raise UsageError(f"{name!r} cannot name a teacher: the word has a meaning of its own")
    return name


def image_ids_sha256(image_ids: Iterable[int], splits: Iterable[str] = ()) -> str:
    """Hash of an image list, in its order: part of a teacher's fingerprint.

    splits: of each image; they count only where an id is that of several images.
    """
    listed = [str(int(key)) for key in image_ids]
    if len(set(listed)) < len(listed):
        listed = [f"{split}/{key}" for split, key in zip(splits, listed, strict=True)]
    return hashlib.sha256(",".join(listed).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """The data set a store was made for."""

    name: str
    annotations_sha256: str
    n_images: int


@dataclass(frozen=True)
class TeacherRecord:
    """A teacher is its configuration; everything but `versions` makes up its fingerprint.

    class_map: the teacher's class name -> category id, or None for a class that is dropped.
    options: what decides its boxes (score_floor, top_k, nms_iou, image_size, ...), JSON values.
    versions: of the libraries that ran it, for the record only.
    image_ids_sha256, unit_size, n_images, n_units: the plan. Unit u holds images
    [u * unit_size, (u + 1) * unit_size) of the list with that hash.
    """

    name: str
    adapter: str
    model: str
    weights_sha256: str
    licence: str
    class_map: Mapping[str, int | None]
    options: Mapping[str, Any]
    image_ids_sha256: str
    unit_size: int
    n_images: int
    n_units: int
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_teacher_name(self.name)
        if self.unit_size < 1 or self.n_images < 0:
            raise UsageError(
                f"teacher {self.name}: a unit holds at least one image and a plan no fewer than 0, "
                f"got unit_size={self.unit_size}, n_images={self.n_images}"
            )
        expected = -(-self.n_images // self.unit_size)
        if self.n_units != expected:
            raise UsageError(
                f"teacher {self.name}: {self.n_images} images in units of {self.unit_size} are "
                f"{expected} units, not {self.n_units}"
            )

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the canonical JSON of everything but `versions`."""
        values = self.to_json()
        del values["versions"]
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def unit_range(self, unit: int) -> range:
        """Positions in the image list that unit `unit` holds."""
        if not 0 <= unit < self.n_units:
            raise StoreError(
                f"teacher {self.name} has no unit {unit}: its plan has {self.n_units} units"
            )
        return range(unit * self.unit_size, min((unit + 1) * self.unit_size, self.n_images))

    def differing_fields(self, other: "TeacherRecord") -> list[str]:
        """Fields of the fingerprint in which two records differ, nested ones as `options.top_k`."""
        ours, theirs = self.to_json(), other.to_json()
        found: list[str] = []
        for key in ours:
            if key == "versions" or ours[key] == theirs[key]:
                continue
            if isinstance(ours[key], dict) and isinstance(theirs[key], dict):
                keys = sorted(ours[key].keys() | theirs[key].keys())
                missing = object()
                found += [
                    f"{key}.{inner}"
                    for inner in keys
                    if ours[key].get(inner, missing) != theirs[key].get(inner, missing)
                ]
            else:
                found.append(key)
        return found

    def value(self, path: str) -> Any:
        """The value of a field as `differing_fields` names it."""
        key, _, inner = path.partition(".")
        whole = self.to_json()[key]
        return whole.get(inner, "(absent)") if inner else whole

    def to_json(self) -> dict[str, Any]:
        """JSON values only; `from_json` reads it back."""
        values = asdict(self)
        try:
            return json.loads(json.dumps(values, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"teacher {self.name}: options must be JSON values: {error}"
            ) from error

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> "TeacherRecord":
        """Read a record back; `where` names the file in messages. Raises FormatError."""
        lacking = [f.name for f in fields(cls) if f.name != "versions" and f.name not in values]
        if lacking:
            raise FormatError(f"{where} lacks {' and '.join(lacking)}")
        try:
            return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})
        except (TypeError, UsageError) as error:
            raise FormatError(f"{where} is no teacher record: {error}") from error


@dataclass(frozen=True, slots=True)
class ImageRow:
    """What one teacher made of one image: the input of `BoxStore.write_unit`.

    boxes hold category ids; None exactly if `status` is not `ok`. width and height are those of the
    file on disk, 0 where it could not be read. split: that the id is of, empty where not known.
    """

    image_id: int
    file_name: str
    width: int
    height: int
    boxes: Boxes | None
    status: str = "ok"
    error: str = ""
    seconds: float = 0.0
    split: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """What identifies the image: its split and its id."""
        return self.split, self.image_id

    def __post_init__(self) -> None:
        if not _STATUS.fullmatch(self.status):
            raise StoreError(
                f"image {self.image_id}: a status is a short code, got {self.status!r}"
            )
        if (self.boxes is None) == (self.status == "ok"):
            raise StoreError(
                f"image {self.image_id}: an image with the status `ok` has boxes (maybe none in "
                f"them), any other has boxes=None; got status {self.status!r} with "
                f"{'no ' if self.boxes is None else ''}boxes"
            )
        if self.boxes is not None and (self.boxes.width, self.boxes.height) != (
            self.width,
            self.height,
        ):
            raise StoreError(
                f"image {self.image_id}: boxes of a {self.boxes.width} x {self.boxes.height} image "
                f"in a row of {self.width} x {self.height}"
            )


def split_units(images: Sequence[_T], unit_size: int) -> list[Sequence[_T]]:
    """The image list (ids, or what stands for an image) cut into units, the last one shorter."""
    return [images[start : start + unit_size] for start in range(0, len(images), unit_size)]
