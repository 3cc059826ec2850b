"""Arrow schemas, format version and footer metadata: the one source of truth about files.

Changing a column's meaning or removing one raises the major version; adding one raises the minor.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from box_store.errors import FormatError
from box_store.format import FORMAT_VERSION, METADATA_KEY, check_version

BOX_FRAME = (
    "pixels of the original image as stored on disk (no EXIF rotation); x to the right, y down; "
    "corners x1, y1, x2, y2; the top left corner of the image is 0, 0"
)
# values are rounded before writing, so that the low mantissa bytes are zero and compress away
COORDINATE_STEPS = 16  # per pixel
SCORE_STEPS = 4096  # per unit
ROW_GROUP_ROWS = 128 * 1024
MAX_BOXES_PER_IMAGE = 2**15 - 1  # rank is an int16


def _field(name: str, kind: pa.DataType, doc: str) -> pa.Field:
    return pa.field(name, kind, nullable=False, metadata={b"doc": doc.encode()})


# files of format 1 lack it
_SPLIT = _field(
    "split",
    pa.dictionary(pa.int16(), pa.string()),
    "the split of the data set that the image id is of; empty where it is not known",
)
OPTIONAL = ("split",)

BOXES = pa.schema(
    [
        _field("image_id", pa.int64(), "id of the image in its split of the data set"),
        _field("category_id", pa.int32(), "the data set's own (raw) category id"),
        _field("score", pa.float32(), "the teacher's confidence, 0..1, rounded to 1/4096"),
        _field("x1", pa.float32(), "left edge, pixels of the original image, rounded to 1/16"),
        _field("y1", pa.float32(), "top edge, pixels of the original image, rounded to 1/16"),
        _field("x2", pa.float32(), "right edge, pixels of the original image, rounded to 1/16"),
        _field("y2", pa.float32(), "bottom edge, pixels of the original image, rounded to 1/16"),
        _field("rank", pa.int16(), "0 = this teacher's best box in this image"),
        _SPLIT,
    ]
)

IMAGES = pa.schema(
    [
        _field("image_id", pa.int64(), "id of the image in its split of the data set"),
        _field("file_name", pa.string(), "path of the image below the image folder"),
        _field("width", pa.int32(), "pixels, as stored on disk; 0 if the image could not be read"),
        _field("height", pa.int32(), "pixels, as stored on disk; 0 if the image could not be read"),
        _field("n_boxes", pa.int32(), "boxes of this teacher in this image"),
        _field("status", pa.string(), "ok, or a code for what went wrong"),
        _field("error", pa.string(), "what went wrong in words, empty if nothing did"),
        _field("seconds", pa.float32(), "time this teacher took for this image"),
        _SPLIT,
    ]
)

SCHEMAS = {"boxes": BOXES, "images": IMAGES}

_COMMON = {"compression": "zstd", "compression_level": 5, "row_group_size": ROW_GROUP_ROWS}
# of `pyarrow.parquet.write_table`; float dictionaries, its default, nearly double a boxes file.
# Nobody looks for boxes by the range of their edges, so these have no statistics
PARQUET_OPTIONS: dict[str, dict[str, Any]] = {
    "boxes": _COMMON
    | {
        "use_dictionary": ["category_id", "split"],
        "write_statistics": ["image_id", "category_id", "score", "split"],
        "column_encoding": {
            "image_id": "DELTA_BINARY_PACKED",
            "score": "BYTE_STREAM_SPLIT",
            "x1": "BYTE_STREAM_SPLIT",
            "y1": "BYTE_STREAM_SPLIT",
            "x2": "BYTE_STREAM_SPLIT",
            "y2": "BYTE_STREAM_SPLIT",
            "rank": "DELTA_BINARY_PACKED",
        },
    },
    "images": _COMMON
    | {
        "use_dictionary": ["status", "error", "split"],
        "column_encoding": {"seconds": "BYTE_STREAM_SPLIT", "image_id": "DELTA_BINARY_PACKED"},
    },
}


@dataclass(frozen=True, slots=True)
class Footer:
    """What stands under the key `teach_detr` in the footer of every Parquet file of a store.

    boxes_sha256: in an images file, the hash of the boxes file that it commits; else empty.
    """

    kind: str
    teacher: str
    fingerprint: str
    unit: int
    boxes_sha256: str = ""
    box_frame: str = BOX_FRAME
    format_version: str = FORMAT_VERSION

    @property
    def names_splits(self) -> bool:
        """Whether the file has the column `split`."""
        return int(self.format_version.partition(".")[0]) >= 2

    def to_metadata(self) -> dict[bytes, bytes]:
        """As schema metadata."""
        return {METADATA_KEY: json.dumps(asdict(self), sort_keys=True).encode()}

    @classmethod
    def from_metadata(cls, metadata: dict[bytes, bytes] | None, where: str) -> "Footer":
        """Read it back; `where` names the file in messages.

        Raises FormatError for a file of another program or of a newer major version.
        """
        raw = (metadata or {}).get(METADATA_KEY)
        if raw is None:
            raise FormatError(
                f"{where} was not written by this program (its footer lacks the key "
                f"{METADATA_KEY.decode()}); move it out of the store"
            )
        try:
            values = json.loads(raw)
            check_version(values.get("format_version"), where)
            known = {key: values[key] for key in cls.__slots__ if key in values}
            return cls(**known)
        except (ValueError, TypeError, AttributeError) as error:
            raise FormatError(f"{where} has a damaged footer ({error}); delete it") from error
