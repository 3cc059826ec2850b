"""What there is in a data set: images, classes, boxes, and what is probably wrong with them."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from box_store.coco.annotations import CocoData
from box_store.forms.headers import image_size, shown_size
from box_store.forms.opening import DataSet
from box_store.forms.protocol import Split
from box_store.pixels import MISSING, ImageError, find_image
from box_store.places.locations import RemotePath

_EXAMPLES = 3
# COCO's borders between small, medium and large objects, square pixels
_SMALL, _MEDIUM = 32**2, 96**2
_QUANTILES = (0.5, 0.9, 0.99, 1.0)


@dataclass
class SplitSurvey:
    """Figures of one split. Sizes in pixels of the files."""

    name: str
    images_folder: str
    annotations: str
    images: int
    present: int = 0
    missing: int = 0
    unreadable: int = 0
    other_size: int = 0
    """whose header disagrees with the annotations"""
    turned: int = 0
    """of those, how many an EXIF orientation explains"""
    repeated: int = 0
    """images that name a file which another one names"""
    unlabelled: int = 0
    """that nobody has looked at"""
    without_objects: int = 0
    """of those that are labelled"""
    boxes: int = 0
    crowds: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    """boxes by COCO's small, medium and large"""
    smallest: tuple[int, int] = (0, 0)
    """width and height of the image with fewest pixels"""
    largest: tuple[int, int] = (0, 0)
    objects_per_image: dict[str, int] = field(default_factory=dict)
    """quantiles, over images with objects"""
    problems: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Survey:
    """What was found. warnings: probable mistakes, a sentence each."""

    data: DataSet
    splits: list[SplitSurvey] = field(default_factory=list)
    duplicates: int = 0
    """images whose bytes are also those of an image in another split"""
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        return {
            "place": str(self.data.place),
            "form": self.data.form,
            "title": self.data.title,
            "evidence": self.data.evidence,
            "notes": list(self.data.notes),
            "splits": [asdict(split) for split in self.splits],
            "duplicates_across_splits": self.duplicates,
            "warnings": self.warnings,
        }


def survey(data: DataSet, progress: Callable[[int, int], None] = lambda done, of: None) -> Survey:
    """Look at every split and at the header of every image; progress: images done, and of how many.

    Raises DataError for annotations that cannot be used.
    """
    found = Survey(data)
    total = sum(len(split.coco.table) for split in data.splits)
    done = 0
    by_bytes: dict[int, list[tuple[str, Path]]] = defaultdict(list)
    for split in data.splits:
        row = _figures(split)
        for path, size in _files(split, row):
            done += 1
            if done % 500 == 0:
                progress(done, total)
            if path is not None:
                by_bytes[size].append((split.name, path))
        found.splits.append(row)
    progress(total, total)
    pairs = list(_across(by_bytes))
    found.duplicates = len(pairs)
    found.warnings = [*_of_all(found, pairs), *(w for row in found.splits for w in _of_split(row))]
    for split in data.splits:
        found.warnings += _one_based(split)
    return found


def _figures(split: Split) -> SplitSurvey:
    coco = split.coco
    table = coco.table
    row = SplitSurvey(split.name, str(split.images), str(split.annotations), len(table))
    counts = np.diff(table.offsets)
    row.boxes, row.crowds = len(table.category_ids), int(table.iscrowd.sum())
    row.unlabelled = int(table.unlabelled.sum())
    row.without_objects = int(((counts == 0) & ~table.unlabelled).sum())
    row.classes = _classes(coco)
    areas = table.boxes_xywh[:, 2] * table.boxes_xywh[:, 3]
    row.sizes = {
        "small": int((areas < _SMALL).sum()),
        "medium": int(((areas >= _SMALL) & (areas < _MEDIUM)).sum()),
        "large": int((areas >= _MEDIUM).sum()),
    }
    if len(table):
        pixels = table.widths.astype(np.int64) * table.heights
        for key, at in (("smallest", pixels.argmin()), ("largest", pixels.argmax())):
            setattr(row, key, (int(table.widths[at]), int(table.heights[at])))
    full = counts[counts > 0]
    if len(full):
        row.objects_per_image = {
            f"{q:.0%}": int(np.quantile(full, q, method="higher")) for q in _QUANTILES
        }
    row.repeated = len(table) - len(set(table.file_names()))
    row.problems = dict(coco.problems)
    row.examples = {kind: list(texts) for kind, texts in coco.examples.items()}
    return row


def _classes(coco: CocoData) -> dict[str, int]:
    ids, counts = np.unique(coco.table.category_ids, return_counts=True)
    by_id = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    names = [item.name for item in coco.categories.items]
    # two categories of one name are told apart by their ids
    return {
        item.name if names.count(item.name) == 1 else f"{item.name} ({item.id})": by_id.get(
            item.id, 0
        )
        for item in coco.categories.items
    }


def _files(split: Split, row: SplitSurvey) -> Iterator[tuple[Path | None, int]]:
    """Look at every image's header; its path and the bytes of the file, where it can be used."""
    table = split.coco.table
    root = split.images
    if isinstance(root, RemotePath):
        row.present = len(table)
        return
    real = Path(root).resolve()
    for at in range(len(table)):
        name = table.file_name(at)
        size = (int(table.widths[at]), int(table.heights[at]))
        try:
            path = Path(str(find_image(real, name)))
            found = image_size(path)
            n_bytes = os.stat(path).st_size  # noqa: PTH116
        except ImageError as error:
            missing = error.status == MISSING
            row.missing += missing
            row.unreadable += not missing
            _example(row, "image missing" if missing else "image not readable", str(error))
            yield None, 0
            continue
        except (OSError, ValueError) as error:
            row.unreadable += 1
            _example(row, "image not readable", f"{name!r}: {error}")
            yield None, 0
            continue
        row.present += 1
        if found != size:
            row.other_size += 1
            turned = shown_size(path) == size
            row.turned += turned
            told = f"{name}: {found[0]}x{found[1]}, the annotations say {size[0]}x{size[1]}"
            _example(row, "image of another size", told)
        yield path, n_bytes


def _example(row: SplitSurvey, kind: str, text: str) -> None:
    texts = row.examples.setdefault(kind, [])
    if len(texts) < _EXAMPLES:
        texts.append(text)


def _across(
    by_bytes: dict[int, list[tuple[str, Path]]],
) -> Iterator[tuple[tuple[str, Path], tuple[str, Path]]]:
    """Pairs of images in different splits with the same content, but not the same file."""
    for rows in by_bytes.values():
        if len({split for split, _ in rows}) < 2 or len({path for _, path in rows}) < 2:
            continue
        seen: dict[bytes, tuple[str, Path]] = {}
        for split, path in rows:
            try:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").digest()
            except OSError:
                continue
            other = seen.setdefault(digest, (split, path))
            if other[0] != split and other[1] != path:
                yield other, (split, path)


def _of_all(found: Survey, pairs: list[Any]) -> Iterator[str]:
    if pairs:
        (first, a), (second, b) = pairs[0]
        yield (
            f"{len(pairs)} images are in two splits under different names, such as {a.name} "
            f"({first}) and {b.name} ({second}): a student is tested on what it learnt"
        )
    tables = {split.name: split.coco.categories for split in found.data.splits}
    names = {tuple((item.id, item.name) for item in table.items) for table in tables.values()}
    if len(names) > 1:
        yield "the splits have different categories: " + "; ".join(
            f"{name} has {', '.join(table.names[:5])}" for name, table in tables.items()
        )


def _of_split(row: SplitSurvey) -> Iterator[str]:
    if row.turned:
        yield (
            f"{row.name}: {row.turned} images have an EXIF orientation that turns them to the size "
            "in the annotations: boxes are in the turned frame, pixels are not. Apply the "
            "orientation to the files (`exiftran -ai`, `mogrify -auto-orient`)"
        )
    if row.other_size > row.turned:
        n = row.other_size - row.turned
        yield f"{row.name}: {n} images are of another size than the annotations say: not usable"
    if row.repeated:
        yield (
            f"{row.name}: {row.repeated} of the images are files that others of the list "
            "are: to each the others' objects are background"
        )
    if row.missing:
        yield f"{row.name}: {row.missing} of {row.images} images are missing"
    unused = [name for name, count in row.classes.items() if count == 0]
    if unused and row.boxes:
        shown = ", ".join(unused[:5]) + (", ..." if len(unused) > 5 else "")
        yield f"{row.name}: no box of {len(unused)} of {len(row.classes)} classes ({shown})"


def _one_based(split: Split) -> Iterator[str]:
    """Whether whole-numbered corners begin at 1 and never at 0."""
    if split.coco.table is None or not split.labelled:
        return
    corners = split.coco.table.boxes_xywh[:, :2]
    if len(corners) < 20 or not (corners == np.rint(corners)).all():
        return
    ones, zeros = int((corners == 1).sum()), int((corners == 0).sum())
    if ones >= 5 and zeros == 0:
        yield (
            f"{split.name}: {ones} boxes begin at pixel 1 and none at pixel 0: are corners counted "
            "from 1, as Pascal VOC's are? Boxes are then shifted by one pixel"
        )
