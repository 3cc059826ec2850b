"""Label Studio: `tasks.json` to import, `labels.xml` for the project's settings, and the images.

As Label Studio's documentation of its JSON has it. A task with guesses is one prediction of all its
boxes, from which a person starts; one without is an annotation. Image paths are those of local
storage whose root is the folder written, or follow a prefix.
"""

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from box_store.outgoing.placing import Names, placed
from box_store.outgoing.sheet import Account, Mark, Part, Sheet

LOCAL = "/data/local-files/?d="
_FROM, _TO = "label", "image"
_COLOURS = ("#e4572e", "#2e86ab", "#7cb518", "#c77dff", "#ff8f2e", "#2ee6c5", "#ff7ab8", "#8a8f98")


def write(
    parts: Sequence[Part], classes: Sequence[str], out: Path, about: str, *, prefix: str = LOCAL
) -> Account:
    """Write into the empty folder `out`; prefix: what stands before an image's path in a task.

    Raises DataError for names that cannot be written.
    """
    account, names = Account(), Names(flat=True)
    tasks: list[dict[str, Any]] = []
    for part in parts:
        for sheet, _ in placed(part, names, account, out / "images"):
            account.marks += len(sheet.marks)
            data = {
                "image": prefix + quote(f"images/{sheet.file_name}"),
                "file_name": sheet.file_name,
            }
            data |= {"split": part.name, "source": about}
            tasks.append({"data": data, **_boxes(sheet)})
    (out / "tasks.json").write_text(json.dumps(tasks, indent=1), encoding="utf-8")
    root = ET.Element("View")
    ET.SubElement(root, "Image", {"name": _TO, "value": "$image", "zoom": "true"})
    labels = ET.SubElement(root, "RectangleLabels", {"name": _FROM, "toName": _TO})
    for at, name in enumerate(classes):
        told = {"value": name, "background": _COLOURS[at % len(_COLOURS)]}
        ET.SubElement(labels, "Label", told)
    ET.indent(root)
    (out / "labels.xml").write_text(ET.tostring(root, encoding="unicode"), encoding="utf-8")
    return account


def _boxes(sheet: Sheet) -> dict[str, Any]:
    results = [_result(sheet, mark, at) for at, mark in enumerate(sheet.marks)]
    guesses = [mark for mark in sheet.marks if mark.guessed]
    if sheet.guessed or sheet.unlabelled:
        if not results:
            return {}
        score = min((mark.score or 0.0 for mark in guesses), default=0.0)
        teachers = ", ".join(sorted({mark.teacher for mark in guesses}))
        return {"predictions": [{"model_version": teachers, "score": score, "result": results}]}
    return {"annotations": [{"result": results}]}


def _result(sheet: Sheet, mark: Mark, at: int) -> dict[str, Any]:
    x1, y1, x2, y2 = mark.corners
    width, height = sheet.width / 100, sheet.height / 100
    value = {
        "x": x1 / width,
        "y": y1 / height,
        "width": (x2 - x1) / width,
        "height": (y2 - y1) / height,
        "rotation": 0,
        "rectanglelabels": [mark.category],
    }
    words = ["crowd"] if mark.crowd else []
    words += [] if mark.score is None else [f"{mark.teacher} {mark.score:.2f}"]
    return {
        "id": f"{sheet.image_id}-{at}",
        "type": "rectanglelabels",
        "from_name": _FROM,
        "to_name": _TO,
        "original_width": sheet.width,
        "original_height": sheet.height,
        "image_rotation": 0,
        "value": value,
        **({} if mark.score is None else {"score": mark.score}),
        **({"meta": {"text": words}} if words else {}),
    }
