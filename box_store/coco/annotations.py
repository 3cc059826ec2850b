"""COCO annotation files: read once, checked once, and handed on as arrays.

A large file is kept as a table beside which JSON need not be parsed again: `load_coco(cache=...)`.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from box_store.boxes import to_xyxy
from box_store.categories import Categories
from box_store.coco.annotation_table import AnnotationTable, open_with_metadata, write_table
from box_store.coco.document import parse_document, read_bytes
from box_store.coco.parsing import Guesses, read_rows
from box_store.coco.rows import Rows
from box_store.coco.sound_file import read_sound_rows
from box_store.errors import DataError, FormatError
from box_store.places.locations import Location, as_typed, staged

# parsing less is faster than looking for a table
_CACHED_FROM_BYTES = 2**23


@dataclass(frozen=True, slots=True, order=True)
class ImageInfo:
    """One image of the data set; size in pixels as stored on disk.

    split: that its id is of, empty where not known: splits may number their images alike.
    """

    id: int
    file_name: str
    width: int
    height: int
    split: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """What identifies it in a store: its split and its id."""
        return self.split, self.id


@dataclass(frozen=True, slots=True, eq=False)
class Annotations:
    """Ground truth of one image, boxes cut to the image.

    boxes_xywh: float32 [N, 4], x, y of the top left corner, width, height, pixels.
    category_ids: int32 [N], raw ids. iscrowd: bool [N]. areas: float32 [N], the annotated area
    (of the mask where there is one), square pixels.
    """

    boxes_xywh: NDArray[np.float32]
    category_ids: NDArray[np.int32]
    iscrowd: NDArray[np.bool_]
    areas: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.category_ids)

    @property
    def boxes_xyxy(self) -> NDArray[np.float32]:
        """float32 [N, 4], corners, pixels."""
        return to_xyxy(self.boxes_xywh)


_NO_ANNOTATIONS = Annotations(
    np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool), np.zeros(0, np.float32)
)


@dataclass(frozen=True, eq=False)
class CocoData:
    """A COCO annotation file.

    Everything lies in the arrays of `table`; `images`, `by_id` and `annotations` are objects made
    from them when first asked for. `problems` counts what was dropped or repaired, `examples` names
    the first few of each kind.
    """

    path: Location
    sha256: str
    categories: Categories
    table: AnnotationTable
    problems: Mapping[str, int]
    examples: Mapping[str, tuple[str, ...]]
    split: str = ""
    """its name, where it is a split of a data set"""
    labelled: bool = True
    """False for a file without a list of annotations: images to be labelled"""

    @property
    def image_ids(self) -> tuple[int, ...]:
        """Image ids in the order of the file."""
        return tuple(self.table.image_ids.tolist())

    @cached_property
    def images(self) -> tuple[ImageInfo, ...]:
        """All images in the order of the file."""
        table = self.table
        columns = (
            table.image_ids.tolist(),
            table.file_names(),
            table.widths.tolist(),
            table.heights.tolist(),
        )
        return tuple(ImageInfo(*row, self.split) for row in zip(*columns, strict=True))

    @cached_property
    def by_id(self) -> dict[int, ImageInfo]:
        """Image by id."""
        return {image.id: image for image in self.images}

    @cached_property
    def annotations(self) -> dict[int, Annotations]:
        """Ground truth by image id, of images that have some."""
        full = np.flatnonzero(np.diff(self.table.offsets))
        return {int(self.table.image_ids[index]): self._rows(int(index)) for index in full}

    @cached_property
    def of_labelled(self) -> "CocoData":
        """Without the images that nobody labelled, against which nothing can be judged."""
        table = self.table
        if not table.unlabelled.any():
            return self
        return replace(self, table=table.take(np.flatnonzero(~table.unlabelled)))

    @property
    def notes(self) -> list[str]:
        """What was dropped or repaired, a phrase for each kind, with two examples."""
        found = []
        for kind, count in self.problems.items():
            examples = "; ".join(self.examples.get(kind, ())[:2])
            found.append(f"{count} x {kind}" + (f" ({examples})" if examples else ""))
        return found

    @property
    def n_boxes(self) -> int:
        """Annotations kept."""
        return len(self.table.category_ids)

    def annotations_of(self, image_id: int) -> Annotations:
        """Ground truth of an image, empty where it has none."""
        index = self.table.index_of(image_id)
        return _NO_ANNOTATIONS if index is None else self._rows(index)

    def _rows(self, index: int) -> Annotations:
        table, rows = self.table, self.table.rows(index)
        return Annotations(
            table.boxes_xywh[rows], table.category_ids[rows], table.iscrowd[rows], table.areas[rows]
        )


def load_coco(
    annotations: Location,
    *,
    labelled: bool = True,
    cache: Path | None = None,
    guesses: Guesses = "refuse",
) -> CocoData:
    """Read and check a COCO annotation file.

    Rows that are no box, boxes of zero or negative size and boxes wholly outside their image are
    dropped, boxes that stick out are cut, and all are counted in `CocoData.problems`. UTF-8, UTF-16
    and UTF-32, packed by gzip or not. With `labelled=False` a file without an `annotations` list is
    taken as images to be labelled. guesses: what becomes of annotations with a score (see
    `parsing.read_rows`).

    cache: a folder for tables of large files, named by their content: the second time, the file is
    hashed and its table mapped, which takes a hundredth of the time and no memory of its own.

    Raises DataError for: a missing file, a file that is no JSON, missing keys, an id that occurs
    twice, is no whole number or does not fit 64 bits, an annotation of an unknown image or
    category, annotations with scores.
    """
    coco = _load(as_typed(annotations), cache, guesses)
    if labelled and not coco.labelled:
        raise DataError(
            f"{coco.path}: a COCO annotation file needs the lists images, categories, annotations; "
            "annotations missing"
        )
    return coco


def _load(path: Location, cache: Path | None, guesses: Guesses) -> CocoData:
    if cache is None or _size(path) < _CACHED_FROM_BYTES:
        return _parse(path, guesses)
    try:
        with staged(path).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        # parsing says what is wrong
        return _parse(path, guesses)
    kept = _kept(cache, sha256, guesses)
    try:
        return _from_table(path, sha256, kept)
    except (FileNotFoundError, FormatError):
        pass
    coco = _parse(path, guesses)
    sha256, kept = coco.sha256, _kept(cache, coco.sha256, guesses)
    metadata = {
        "sha256": sha256,
        "categories": coco.categories.to_json(),
        "problems": coco.problems,
        "examples": coco.examples,
        "labelled": coco.labelled,
    }
    try:
        write_table(kept, coco.table, metadata)
    except OSError:
        # a home that is full or read-only costs the time of parsing, nothing else
        return coco
    return _from_table(path, sha256, kept)


def _kept(cache: Path, sha256: str, guesses: Guesses) -> Path:
    # those of before scores were looked at are called otherwise
    return cache / f"{sha256}.{guesses}.annotations.arrow"


def _from_table(path: Location, sha256: str, kept: Path) -> CocoData:
    table, document = open_with_metadata(kept)
    return CocoData(
        path,
        sha256,
        Categories.from_coco(document["categories"]),
        table,
        document["problems"],
        {kind: tuple(texts) for kind, texts in document["examples"].items()},
        labelled=document.get("labelled", True),
    )


def _size(path: Location) -> int:
    try:
        return staged(path).stat().st_size
    except OSError:
        # reading it says what is wrong
        return 0


def coco_of(
    document: Mapping[str, Any], path: Location = Path("the annotations"), sha256: str = ""
) -> CocoData:
    """The same from the content of a file. Images need no `file_name` here, annotations no `id`,
    and these may carry a score: whoever has them at hand knows what they are. Raises DataError.
    """
    return _from_document(document, path, sha256, named=False, guesses="keep")


def coco_table(coco: CocoData) -> dict[str, Any]:
    """A COCO document of what was read, as metrics want it: nothing that was dropped, boxes cut,
    annotations numbered from 1 (0 means "none" to pycocotools), `area` and `iscrowd` in all rows.
    """
    table = coco.table
    owners = np.repeat(table.image_ids, np.diff(table.offsets)).tolist()
    columns = zip(
        owners,
        table.category_ids.tolist(),
        table.boxes_xywh.tolist(),
        table.areas.tolist(),
        table.iscrowd.astype(int).tolist(),
        strict=True,
    )
    return {
        "images": [
            {"id": each.id, "file_name": each.file_name, "width": each.width, "height": each.height}
            | ({"labelled": False} if unlabelled else {})
            for each, unlabelled in zip(coco.images, table.unlabelled.tolist(), strict=True)
        ],
        "categories": coco.categories.to_json(),
        "annotations": [
            {
                "id": number,
                "image_id": image_id,
                "category_id": category_id,
                "bbox": box,
                "area": area,
                "iscrowd": crowd,
            }
            for number, (image_id, category_id, box, area, crowd) in enumerate(columns, 1)
        ],
    }


def _parse(path: Location, guesses: Guesses) -> CocoData:
    raw = read_bytes(path, "annotation file")
    digest = hashlib.sha256(raw).hexdigest()
    sound = read_sound_rows(raw)
    if sound is not None:
        # the text is not needed while its rows are checked
        del raw
        return _checked(path, digest, *sound)
    # outlines are most of a COCO file and nobody here needs them
    document = parse_document(raw, path, _without_outline)
    return _from_document(document, path, digest, named=True, guesses=guesses)


def _from_document(
    document: Any, path: Location, sha256: str, *, named: bool, guesses: Guesses = "refuse"
) -> CocoData:
    found = read_rows(document, path, named=named, guesses=guesses)
    return _checked(path, sha256, *found, isinstance(document.get("annotations"), list))


def _checked(
    path: Location,
    sha256: str,
    categories: Categories,
    rows: Rows,
    describe: Callable[[int, int], str],
    labelled: bool,
) -> CocoData:
    table = rows.table(describe)
    counts = dict(rows.problems.counts)
    return CocoData(
        path, sha256, categories, table, counts, rows.problems.examples, labelled=labelled
    )


def _without_outline(row: dict[str, Any]) -> dict[str, Any]:
    row.pop("segmentation", None)
    return row
