"""labelme: a JSON file beside every image, boxes as rectangles, as its `label_file.py` reads it.

X-AnyLabeling reads the same and shows `score`; labelme keeps what it does not know.
"""

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from box_store.outgoing.placing import Names, placed
from box_store.outgoing.sheet import Account, Mark, Part, Sheet, subset

# whose fields these are
_VERSION = "5.5.0"


def write(parts: Sequence[Part], classes: Sequence[str], out: Path, about: str) -> Account:
    """Write into the empty folder `out`, a folder a split. An image that nobody labelled wholly has
    a file only if there are marks to start from.

    Raises DataError for names that cannot be written.
    """
    account, names = Account(), Names(flat=False)
    for part in parts:
        for sheet, image in placed(part, names, account, out / subset(part, parts)):
            if sheet.unlabelled and not sheet.marks:
                continue
            account.marks += len(sheet.marks)
            path = image.with_suffix(".json")
            path.parent.mkdir(parents=True, exist_ok=True)
            document = _document(sheet, about)
            path.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return account


def _document(sheet: Sheet, about: str) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "flags": {"unlabelled": True} if sheet.unlabelled or sheet.guessed else {},
        "shapes": [_shape(mark) for mark in sheet.marks],
        "imagePath": PurePosixPath(sheet.file_name).name,
        "imageData": None,
        "imageHeight": sheet.height,
        "imageWidth": sheet.width,
        "source": about,
    }


def _shape(mark: Mark) -> dict[str, Any]:
    x1, y1, x2, y2 = mark.corners
    guess = {} if mark.score is None else {"score": mark.score, "teacher": mark.teacher}
    told = "" if mark.score is None else f"{mark.teacher} {mark.score:.2f}"
    return {
        "label": mark.category,
        "points": [[x1, y1], [x2, y2]],
        "group_id": None,
        "description": told,
        "shape_type": "rectangle",
        "flags": {"crowd": True} if mark.crowd else {},
        "mask": None,
        **guess,
    }
