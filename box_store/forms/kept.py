"""Indexes of data sets that were read file by file, kept in the cache until a file changes.

The second time a hundred thousand files of labels are not opened but only looked at: their sizes
and times, and those of their folders, are compared, and the tables are mapped.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from box_store.categories import Categories
from box_store.coco.annotation_table import open_with_metadata, write_table
from box_store.coco.annotations import CocoData
from box_store.errors import FormatError
from box_store.forms.tree import IMAGE_SUFFIXES, suffix
from box_store.places import files

_VERSION = 1
# reading fewer files is as fast as looking for an index
_WORTH_FILES = 500
# a file that changes within a tick of the clock after it was read would not be seen to change
_SETTLED_NS = 2_000_000_000
_PROBED_IMAGES = 64
_MASK = 2**64 - 1


@dataclass(frozen=True)
class Index:
    """What was read of a place: the tables of its splits, and what is said of them."""

    form: str
    evidence: str
    notes: tuple[str, ...]
    labelled: bool
    splits: Mapping[str, tuple[Path, CocoData]]


def key_of(place: Path, asked: Mapping[str, str]) -> str:
    """The name of an index: of a place as it was asked for."""
    told = json.dumps([_VERSION, str(place.absolute()), sorted(asked.items())])
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


def find(cache: Path, key: str, place: Path) -> Index | None:
    """The index of a place, if there is one and no file has changed since."""
    folder = cache / "forms"
    try:
        document = json.loads((folder / f"{key}.json").read_bytes())
        for root, folders, stamp in document["stamps"]:
            if _stamp(Path(root), folders) != stamp:
                return None
        splits = {}
        for name, row in document["splits"].items():
            table, about = open_with_metadata(folder / row["table"])
            coco = CocoData(
                place,
                row["sha256"],
                Categories.from_coco(about["categories"]),
                table,
                about["problems"],
                {kind: tuple(texts) for kind, texts in about["examples"].items()},
            )
            splits[name] = (Path(row["images"]), coco)
        return Index(
            document["form"],
            document["evidence"],
            tuple(document["notes"]),
            document["labelled"],
            splits,
        )
    except (OSError, ValueError, KeyError, TypeError, FormatError):
        return None


def keep(cache: Path, key: str, index: Index, roots: Mapping[Path, list[str]]) -> Index:
    """Write an index, if that is worth it; what to use from now on: the mapped tables if it was.

    roots: the folders below each root whose files decide.
    """
    n_files = sum(len(coco.table) for _, coco in index.splits.values())
    if n_files < _WORTH_FILES:
        return index
    folder = cache / "forms"
    try:
        stamps = [[str(root), folders, _stamp(root, folders)] for root, folders in roots.items()]
        if max(stamp["newest"] for _, _, stamp in stamps) > time.time_ns() - _SETTLED_NS:
            return index
        splits: dict[str, Any] = {}
        for at, (name, (images, coco)) in enumerate(index.splits.items()):
            about = {
                "categories": coco.categories.to_json(),
                "problems": dict(coco.problems),
                "examples": dict(coco.examples),
            }
            table = f"{key}-{at}.annotations.arrow"
            write_table(folder / table, coco.table, about)
            splits[name] = {"images": str(images), "table": table, "sha256": coco.sha256}
        document = {
            "form": index.form,
            "evidence": index.evidence,
            "notes": list(index.notes),
            "labelled": index.labelled,
            "stamps": stamps,
            "splits": splits,
        }
        with files.replacing(folder / f"{key}.json") as file:
            file.write(json.dumps(document).encode("utf-8", "surrogatepass"))
    except OSError:
        # a cache that is full or read-only costs the time of reading, nothing else
        return index
    return index


def _stamp(root: Path, folders: list[str]) -> dict[str, int]:
    """What changes when a file of labels does: number, sizes and times, and times of folders."""
    count = size = times = newest = images = 0
    step = 0
    for folder in folders:
        place = root / folder if folder else root
        changed = place.stat().st_mtime_ns
        newest = max(newest, changed)
        times = (times + changed * 31) & _MASK
        with os.scandir(place) as entries:
            for entry in entries:
                if suffix(entry.name) in IMAGE_SUFFIXES:
                    step += 1
                    # photos are looked at now and then: that they were all resized is seen
                    if step % 997 != 1 or images >= _PROBED_IMAGES:
                        continue
                    images += 1
                elif entry.name.startswith(".") or not entry.is_file():
                    continue
                stat = entry.stat()
                count += 1
                size += stat.st_size
                newest = max(newest, stat.st_mtime_ns)
                times = (times + stat.st_mtime_ns * (stat.st_ino | 1)) & _MASK
    return {"files": count, "bytes": size, "times": times, "newest": newest}
