"""The rows of a sound COCO file, straight from its bytes into arrays.

Most files have nothing wrong with them, and need no Python object for every number: msgspec
(https://jcristharif.com/msgspec) reads the few fields that count, some thousand rows at a time. It
accepts less than JSON allows, and whatever it or a check here does not like is left to
`parsing.read_rows`, which reads again and says what is wrong with which row.
"""

import codecs
import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from box_store.categories import Categories
from box_store.coco.parsing import WIDEST, describer, has_score, name_of
from box_store.coco.rows import Rows
from box_store.errors import DataError

if TYPE_CHECKING:
    import msgspec

# rows that are objects at the same time
_AT_ONCE = 4096
# bytes whose encoding is checked at the same time
_BLOCK = 1 << 24
# whole numbers beyond are no part of a box; as floats they cannot be told from others
_LARGEST = float(2**63 - 1)
_NAN = float("nan")


def read_sound_rows(
    raw: bytes,
) -> tuple[Categories, Rows, Callable[[int, int], str], bool] | None:
    """What `parsing.read_rows` gives, and whether the file has a list of annotations; or None for a
    file about which it would have something to say, and where msgspec is not installed.
    """
    try:
        import msgspec
    except ImportError:
        # a node that brings its own packages: slower, and equal
        return None
    body = memoryview(raw)[len(codecs.BOM_UTF8) * raw.startswith(codecs.BOM_UTF8) :]
    try:
        if not raw.isascii():
            # msgspec does not look at the encoding of what it skips
            _check_utf8(body)
        document = _decoders().document.decode(body)
        listed = json.loads(bytes(document.categories))
        _need(isinstance(listed, list))
        categories = Categories.from_coco(listed)
        rows = Rows()
        image_ids = _add_images(document.images, rows)
        objects = document.annotations
        labelled = isinstance(objects, msgspec.Raw)
        if labelled:
            _add_boxes(objects, rows, image_ids, np.array(categories.ids, np.int64))
    except (msgspec.MsgspecError, DataError, ValueError, OverflowError, RecursionError):
        return None
    return categories, rows, describer(image_ids.tolist()), labelled


class _Decoders:
    """The types of the fields that are read, and their decoders."""

    def __init__(self) -> None:
        import msgspec

        class Document(msgspec.Struct):
            images: msgspec.Raw
            categories: msgspec.Raw
            annotations: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET

        class Image(msgspec.Struct, gc=False):
            id: int
            width: int
            height: int
            file_name: str | None = None
            coco_url: str | None = None
            labelled: bool | None = None

        class Annotation(msgspec.Struct, gc=False):
            id: int
            image_id: int
            category_id: int
            bbox: tuple[float, float, float, float]
            area: float | None = None
            iscrowd: bool | int | None = None
            score: float | None = None

        self.document = msgspec.json.Decoder(Document)
        self.rows = msgspec.json.Decoder(list[msgspec.Raw])
        self.images = msgspec.json.Decoder(list[Image])
        self.annotations = msgspec.json.Decoder(list[Annotation])


@cache
def _decoders() -> _Decoders:
    return _Decoders()


def _check_utf8(body: memoryview) -> None:
    """Raises UnicodeDecodeError."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(body), _BLOCK):
        decoder.decode(body[start : start + _BLOCK])
    decoder.decode(b"", final=True)


def _add_images(listed: "msgspec.Raw", rows: Rows) -> NDArray[np.int64]:
    """Add the images; their ids. Raises _Unsound."""
    ids: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    for some in _blocks(listed):
        found = _decoders().images.decode(some)
        ids.append(np.array([row.id for row in found], np.int64))
        sides = np.array([(row.width, row.height) for row in found], np.int64)
        names = [name_of(row.file_name, row.coco_url) for row in found]
        _need(all(names) and ((sides > 0) & (sides <= WIDEST)).all())
        unlabelled = np.array([row.labelled is False for row in found], bool)
        rows.add_images(ids[-1], [name or "" for name in names], sides, unlabelled)
    found_ids = np.concatenate(ids)
    _need(_differ(found_ids))
    return found_ids


def _blocks(listed: "msgspec.Raw") -> Iterator[bytes]:
    """A JSON list as lists of some thousand entries."""
    entries = _decoders().rows.decode(listed)
    for start in range(0, len(entries), _AT_ONCE):
        yield b"[" + b",".join(entries[start : start + _AT_ONCE]) + b"]"


def _add_boxes(
    listed: "msgspec.Raw", rows: Rows, image_ids: NDArray[np.int64], known: NDArray[np.int64]
) -> None:
    """Add the boxes. known: category ids. Raises _Unsound."""
    order = np.argsort(image_ids)
    in_order = image_ids[order]
    numbers: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    for some in _blocks(listed):
        found = _decoders().annotations.decode(some)
        _need(not any(has_score(row.score) for row in found))
        numbers.append(np.array([row.id for row in found], np.int64))
        of_image = np.array([row.image_id for row in found], np.int64)
        category_ids = np.array([row.category_id for row in found], np.int64)
        boxes = np.array([value for row in found for value in row.bbox], np.float64)
        areas = np.array([_NAN if row.area is None else row.area for row in found], np.float64)
        crowd = np.array([row.iscrowd or 0 for row in found], np.int64)
        _need(len(image_ids) > 0 and np.isin(category_ids, known).all())
        at = np.minimum(in_order.searchsorted(of_image), len(order) - 1)
        _need((in_order[at] == of_image).all())
        _need((np.abs(boxes) < _LARGEST).all() and ((crowd == 0) | (crowd == 1)).all())
        rows.add_columns(order[at], category_ids, boxes, numbers[-1], crowd, areas)
    _need(_differ(np.concatenate(numbers)))


class _Unsound(ValueError):
    """There is something to say about the file."""


def _need(sound: Any) -> None:
    if not sound:
        raise _Unsound


def _differ(numbers: NDArray[np.int64]) -> bool:
    return not (np.diff(np.sort(numbers)) == 0).any()
