"""Indexes of data sets that were read file by file, kept in the cache until a file changes.

The second time a hundred thousand files of labels are not opened but only looked at: their sizes
and times, and those of their folders, are compared, and the tables are mapped.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from box_store.categories import Categories
from box_store.coco.annotation_table import open_with_metadata, write_table
from box_store.coco.annotations import CocoData
from box_store.errors import FormatError
from box_store.forms.tree import IMAGE_SUFFIXES, Tree, suffix
from box_store.places import files

_VERSION = 3
# reading fewer files is as fast as looking for an index
_WORTH_FILES = 500
# a file that changes within a tick of the clock after it was read would not be seen to change
_SETTLED_NS = 2_000_000_000
_PROBED_IMAGES = 64
_MASK = 2**64 - 1
# endings that most images have
_PHOTOS = (".jpg", ".png", "jpeg", "webp", ".bmp")


@dataclass(frozen=True)
class Watched:
    """What is looked at to see whether a data set has changed.

    labels: folders that hold other files than images, all of which decide; photos: folders of
    images alone, whose own times say whether one came or went; probes: some images, of which is
    seen that all were resized. Paths from the root.
    """

    root: str
    labels: list[str]
    photos: list[str]
    probes: list[str]

    @classmethod
    def of(cls, tree: Tree) -> "Watched":
        """All that is below the root of a tree."""
        labels, photos = [], []
        for folder, names in tree.folders.items():
            others = any(suffix(name) not in IMAGE_SUFFIXES for name in names)
            (labels if others else photos).append(folder)
        step = max(1, len(tree.images) // _PROBED_IMAGES)
        return cls(str(tree.root), labels, photos, tree.images[::step])

    def stamp(self) -> dict[str, int]:
        """Numbers that change when a file does. Raises OSError where something is gone."""
        count = size = times = newest = 0

        def add(stat: os.stat_result) -> None:
            nonlocal size, times, newest
            size += stat.st_size
            newest = max(newest, stat.st_mtime_ns)
            times = (times + stat.st_mtime_ns * (stat.st_ino | 1)) & _MASK

        for path in (*self.labels, *self.photos, *self.probes):
            add(os.stat(f"{self.root}/{path}"))  # noqa: PTH116
        for folder in self.labels:
            with os.scandir(f"{self.root}/{folder}") as entries:
                for entry in entries:
                    count += 1
                    # photos beside labels are known by the time of their folder
                    if entry.name[-4:].lower() not in _PHOTOS:
                        add(entry.stat(follow_symlinks=False))
        return {"files": count, "bytes": size, "times": times, "newest": newest}


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
        watched = Watched(**document["watched"])
        if watched.stamp() != document["stamp"]:
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


def keep(cache: Path, key: str, index: Index, watched: Watched) -> None:
    """Write an index, if that is worth it; a cache that cannot be written is done without."""
    n_files = sum(len(coco.table) for _, coco in index.splits.values())
    if n_files < _WORTH_FILES:
        return
    folder = cache / "forms"
    try:
        stamp = watched.stamp()
        if stamp["newest"] > time.time_ns() - _SETTLED_NS:
            return
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
            "watched": asdict(watched),
            "stamp": stamp,
            "splits": splits,
        }
        with files.replacing(folder / f"{key}.json") as file:
            file.write(json.dumps(document).encode("utf-8", "surrogatepass"))
    except OSError:
        # a cache that is full or read-only costs the time of reading, nothing else
        return
