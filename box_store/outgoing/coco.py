"""A data set of any form written as COCO: unique ids, images linked, a validation split cut off."""

import json
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from box_store.coco.annotations import CocoData
from box_store.errors import StoreError, UsageError
from box_store.forms.at_once import ALL, role
from box_store.forms.opening import DataSet
from box_store.forms.protocol import Split
from box_store.outgoing.placing import place_image
from box_store.places import files
from box_store.places.locations import RemotePath

TRAIN, VAL = "train", "val"


@dataclass(frozen=True)
class Written:
    """A split as it was written. missing: images that were not there, and are left out."""

    split: str
    annotations: Path
    images: int
    boxes: int
    missing: int


def write_coco(
    data: DataSet,
    out: Path,
    *,
    val: float | None = None,
    seed: int = 0,
    origins: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]] | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[Written]:
    """Write `out/annotations/instances_SPLIT.json` and `out/SPLIT/`, images as hard links where the
    file system allows it, else as copies.

    Ids stay as they are, but where two splits use the same for different images those of the later
    split go on behind the largest. val: the share of images that become the split `val`, drawn with
    `seed` so that every class is shared out alike. origins: who made the labels of an image, by its
    split and id; kept with each. progress: images done, and of how many.

    Raises UsageError: `out` is not empty or lies in the data set, or there is a split for
    validation already. DataError, StoreError.
    """
    out = Path(out).absolute()
    check_target(data, out)
    parts = divided(data, val, seed)
    total = sum(len(rows) for _, _, rows in parts)
    ids = _Ids()
    for split, _, _ in parts:
        ids.reserve(split.coco)
    next_box = 1
    written: list[Written] = []
    done = 0
    try:
        for split, name, rows in parts:
            files.make_folder(out / name)
            images: list[dict[str, Any]] = []
            boxes: list[dict[str, Any]] = []
            missing = 0
            for at in rows.tolist():
                done += 1
                if done % 200 == 0:
                    progress(done, total)
                file_name = split.coco.table.file_name(at)
                if not place_image(split.images, file_name, out / name / file_name):
                    missing += 1
                    continue
                own = int(split.coco.table.image_ids[at])
                row = _image(split.coco, at, ids(own, (str(split.images), file_name)))
                images.append(row)
                told = (origins or {}).get((split.name, own))
                for number, box in enumerate(_boxes(split.coco, at, row["id"])):
                    origin = {} if told is None else {"origin": dict(told[number])}
                    boxes.append({"id": next_box, **box, **origin})
                    next_box += 1
            path = out / "annotations" / f"instances_{name}.json"
            document = {
                "info": {
                    "description": f"{data.place} ({data.title}), split {split.name}",
                    "source_sha256": split.coco.sha256,
                },
                "images": images,
                "categories": split.coco.categories.to_json(),
                "annotations": boxes,
            }
            files.make_folder(path.parent)
            with files.replacing(path) as file:
                file.write(json.dumps(document).encode())
            written.append(Written(name, path, len(images), len(boxes), missing))
    except OSError as error:
        raise StoreError(f"cannot write {out}: {error.strerror or error}") from error
    progress(total, total)
    return written


def divided(data: DataSet, val: float | None, seed: int) -> "list[Share]":
    """What is written: splits, the names that they get, and the places of their images.

    Splits that others make up are left out; `val` cuts off a share of what is trained on. Raises
    UsageError for a share that is none, or a second split for validation.
    """
    parts: list[Share] = [
        (split, split.name, np.arange(len(split.coco.table))) for split in _without_unions(data)
    ]
    return parts if val is None else _with_val(parts, val, seed)


def check_target(data: DataSet, out: Path) -> None:
    """Raise UsageError for a folder that is not empty, or lies in the data set."""
    if isinstance(data.place, RemotePath):
        raise UsageError(f"{data.place} is a URL, and in COCO's layout already")
    source = Path(data.place).absolute()
    source = source if source.is_dir() else source.parent
    if out.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{out} lies in the data set {source}, where nothing is written")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not empty: choose another folder")


def _without_unions(data: DataSet) -> list[Split]:
    """Splits, but for those whose images all are in others that are smaller, as `trainval`."""
    names = {
        split.name: {split.coco.table.file_name(at) for at in range(len(split.coco.table))}
        for split in data.splits
    }
    kept = []
    for split in data.splits:
        mine = names[split.name]
        parts = [
            names[other.name]
            for other in data.splits
            if other is not split
            and str(other.images) == str(split.images)
            and names[other.name] < mine
        ]
        if not (len(parts) > 1 and set.union(*parts) == mine):
            kept.append(split)
    return kept


Share = tuple[Split, str, Any]


def _with_val(parts: Sequence[Share], val: float, seed: int) -> list[Share]:
    if not 0 < val < 1:
        raise UsageError(f"--val {val}: a share of the images between 0 and 1")
    existing = [name for _, name, _ in parts if role(name) == VAL]
    if existing:
        raise UsageError(
            f"there is a split for validation already ({existing[0]}): leave --val away"
        )
    source = next((p for p in parts if role(p[1]) == TRAIN or p[1] == ALL), parts[0])
    split = source[0]
    chosen = stratified(split.coco, val, seed)
    name = TRAIN if source[1] == ALL else source[1]
    cut = [(split, name, np.flatnonzero(~chosen)), (split, VAL, np.flatnonzero(chosen))]
    return [*cut, *(part for part in parts if part is not source)]


def stratified(coco: CocoData, share: float, seed: int) -> np.ndarray:
    """Which images are drawn: bool [M]. The rarest class first, each class's images are shared out
    (after Sechidis et al. 2011, "On the stratification of multi-label data").
    """
    table = coco.table
    generator = random.Random(seed)
    holders: dict[int, list[int]] = defaultdict(list)
    for at in range(len(table)):
        for category_id in set(table.category_ids[table.rows(at)].tolist()):
            holders[category_id].append(at)
    chosen, decided = np.zeros(len(table), bool), np.zeros(len(table), bool)

    def draw(images: list[int]) -> None:
        wanted = round(share * len(images)) - int(chosen[images].sum())
        free = [at for at in images if not decided[at]]
        generator.shuffle(free)
        chosen[free[: max(0, wanted)]] = True
        decided[images] = True

    for _, images in sorted(holders.items(), key=lambda pair: (len(pair[1]), pair[0])):
        draw(images)
    draw([at for at in range(len(table)) if not decided[at]])
    if len(table) > 1 and (chosen.all() or not chosen.any()):
        chosen[:] = False
        chosen[generator.randrange(len(table))] = True
    return chosen


def _image(coco: CocoData, at: int, image_id: int) -> dict[str, Any]:
    table = coco.table
    own = int(table.image_ids[at])
    return {
        "id": image_id,
        "file_name": table.file_name(at),
        "width": int(table.widths[at]),
        "height": int(table.heights[at]),
        # results files made for the set as it lay refer to it
        **({} if own == image_id else {"source_id": own}),
        **({"labelled": False} if table.unlabelled[at] else {}),
    }


class _Ids:
    """Image ids that are given once over all splits."""

    def __init__(self) -> None:
        self._owner: dict[int, tuple[str, str]] = {}
        self._largest = 0

    def __call__(self, image_id: int, image: tuple[str, str]) -> int:
        """The id of an image, by its folder and name: its own, unless another image has it."""
        if self._owner.setdefault(image_id, image) != image:
            image_id = self._largest + 1
            self._owner[image_id] = image
        self._largest = max(self._largest, image_id)
        return image_id

    def reserve(self, coco: CocoData) -> None:
        """Give no id of this split to an image of another."""
        self._largest = max(self._largest, int(coco.table.image_ids.max(initial=0)))


def _boxes(coco: CocoData, at: int, image_id: int) -> list[dict[str, Any]]:
    table, rows = coco.table, coco.table.rows(at)
    return [
        {"image_id": image_id, "category_id": category, "bbox": box, "area": area, "iscrowd": crowd}
        for category, box, area, crowd in zip(
            table.category_ids[rows].tolist(),
            table.boxes_xywh[rows].tolist(),
            table.areas[rows].tolist(),
            table.iscrowd[rows].astype(int).tolist(),
            strict=True,
        )
    ]
