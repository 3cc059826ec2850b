"""Edits of a valid annotation and a valid results file, thousands of them, from fixed seeds."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

ODD = [
    *(None, True, False, 0, -1, 1, 2, 2**31, 2**63, -(2**63) - 1, 10**400, 0.0, -0.0, 0.5, 1.0),
    *(1e-320, 1e308, float("nan"), float("inf"), -float("inf"), "", "0", "1", "1.0", "x", "\0"),
    *(chr(0xD83D), "ü" * 300, "../../etc/passwd", "a\\b.png", "/a.png", [], [[]], [0, 0, 1, 1]),
    *([1, 2, 3], {}, {"id": 1}, [None] * 4, [1e308] * 4, ["1", "2", "3", "4"]),
    *([float("nan")] * 4, [0, 0, 1e-320, 1e-320]),
]

ANNOTATIONS: dict[str, Any] = {
    "images": [{"id": i, "file_name": f"im{i}.png", "width": 64, "height": 48} for i in (1, 2, 3)],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog", "supercategory": "pet"}],
    "annotations": [
        {"id": k, "image_id": i, "category_id": c, "bbox": [5, i, 18.5, 16], "area": 288}
        | {"iscrowd": k == 5, "segmentation": [[1, 2, 3, 4, 5, 6]]}
        for k, (i, c) in enumerate([(1, 1), (1, 2), (2, 1), (3, 2), (3, 1)], 1)
    ],
}
RESULTS: list[Any] = [
    {"image_id": row["image_id"], "category_id": row["category_id"], "bbox": row["bbox"]}
    | {"score": 0.9}
    for row in ANNOTATIONS["annotations"]
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a document."""
    keys = (
        range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
    )
    return [path, *(found for key in keys for found in places(value[key], (*path, key)))]


def edited(document: Any, steps: list[tuple[int, int, str]]) -> Any:
    """A copy with values replaced, dropped, doubled or put elsewhere."""
    document = copy.deepcopy(document)
    for where, what, kind in steps:
        paths = places(document)
        path = paths[where % len(paths)]
        value = copy.deepcopy(ODD[what % len(ODD)])
        if not path:
            document = value if kind == "replace" and where % 7 == 0 else document
            continue
        holder = document
        for key in path[:-1]:
            holder = holder[key]
        key = path[-1]
        if kind == "replace":
            holder[key] = value
        elif kind == "drop":
            del holder[key]
        elif kind == "double" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif kind == "move":
            other = paths[what % len(paths)]
            if other and len(other) < len(path):
                continue
            holder[key] = copy.deepcopy(holder[key])
        if not isinstance(document, dict | list):
            break
    return document


def broken(raw: bytes, cuts: list[tuple[int, int, str]]) -> bytes:
    """The same in bytes: cut off, flipped, doubled, in other encodings."""
    for where, what, kind in cuts:
        at = where % (len(raw) + 1)
        if kind == "replace":
            raw = raw[:at] + bytes([what % 256]) + raw[at + 1 :]
        elif kind == "drop":
            raw = raw[:at]
        elif kind == "double":
            raw = raw[:at] + raw[max(0, at - 9) :]
        else:
            codec = ["utf-16", "utf-32", "utf-8-sig", "utf-16-be"][what % 4]
            raw = raw.decode("latin-1").encode(codec)
    return raw


# hypothesis draws seeds; the edits follow from them, as drawing each would take most of the time
SEEDS = st.integers(0, 2**32 - 1)
EDITS_A_SEED = 25
KINDS = ("replace", "drop", "double", "move")


def edits_of(seed: int) -> Iterator[tuple[list[Any], list[Any], bool]]:
    """Steps in the document, steps in its bytes, and whether the latter are made."""
    draw = random.Random(seed)

    def step() -> tuple[int, int, str]:
        return draw.randrange(400), draw.randrange(400), draw.choice(KINDS)

    for _ in range(EDITS_A_SEED):
        steps = [step() for _ in range(draw.randint(1, 4))]
        yield steps, [step() for _ in range(draw.randint(0, 2))], draw.random() < 0.3


FUZZ = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)


def written(path: Path, document: Any, edits: Any) -> Path:
    steps, cuts, in_bytes = edits
    raw = json.dumps(edited(document, steps)).encode()
    path.write_bytes(broken(raw, cuts) if in_bytes else raw)
    return path
