"""CVAT for images 1.1: `annotations.xml`, the images, and `labels.json` to make a task from.

As CVAT's documentation of the format has it. A guess has the source `auto` and the attributes
`score`, `teacher` and `confirmed`; CVAT makes `semi-auto` of the source when a person edits a box.
"""

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from box_store.forms.cvat import UNLABELLED
from box_store.outgoing.placing import Names, placed
from box_store.outgoing.sheet import Account, Mark, Part, Sheet, number, subset

VERSION = "1.1"
# name, input of CVAT's page, value of a label that people made
_ATTRIBUTES = (
    ("score", "text", ""),
    ("teacher", "text", ""),
    ("confirmed", "checkbox", "false"),
    ("crowd", "checkbox", "false"),
)


def write(parts: Sequence[Part], classes: Sequence[str], out: Path, about: str) -> Account:
    """Write into the empty folder `out`. CVAT finds an image by its name, which is therefore none
    twice; others look for it in the folder of its `subset`.

    Raises DataError for names that cannot be written.
    """
    account, names = Account(), Names(flat=True)
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = VERSION
    meta, size = _meta(classes, about, [subset(part, parts) for part in parts])
    root.append(meta)
    unlabelled = False
    for part in parts:
        below = subset(part, parts)
        for sheet, _ in placed(part, names, account, out / "images" / below):
            root.append(_image(sheet, below, account.images - 1))
            account.marks += len(sheet.marks)
            unlabelled |= sheet.unlabelled
    size.text = str(account.images)
    tree = ET.ElementTree(root)
    ET.indent(tree)
    tree.write(out / "annotations.xml", encoding="utf-8", xml_declaration=True)
    labels = [_label(name) for name in classes]
    if unlabelled:
        labels.append({"name": UNLABELLED, "type": "tag", "attributes": []})
    text = json.dumps(labels, indent=1, ensure_ascii=False)
    (out / "labels.json").write_text(text, encoding="utf-8")
    return account


def _meta(
    classes: Sequence[str], about: str, subsets: Sequence[str]
) -> tuple[ET.Element, ET.Element]:
    """The head of the file, and where it says how many images there are."""
    meta = ET.Element("meta")
    task = ET.SubElement(meta, "task")
    ET.SubElement(task, "name").text = about
    size = ET.SubElement(task, "size")
    ET.SubElement(task, "mode").text = "annotation"
    for name in subsets:
        ET.SubElement(task, "subset").text = name
    labels = ET.SubElement(task, "labels")
    for name in classes:
        label = ET.SubElement(labels, "label")
        ET.SubElement(label, "name").text = name
        ET.SubElement(label, "type").text = "rectangle"
        attributes = ET.SubElement(label, "attributes")
        for row in _label(name)["attributes"]:
            attribute = ET.SubElement(attributes, "attribute")
            ET.SubElement(attribute, "name").text = row["name"]
            ET.SubElement(attribute, "mutable").text = str(row["mutable"])
            ET.SubElement(attribute, "input_type").text = row["input_type"]
            ET.SubElement(attribute, "default_value").text = row["default_value"]
            ET.SubElement(attribute, "values").text = "\n".join(row["values"])
    return meta, size


def _label(name: str) -> dict[str, Any]:
    """A label as CVAT's raw constructor takes it."""
    return {
        "name": name,
        "type": "rectangle",
        "attributes": [
            {
                "name": key,
                "mutable": False,
                "input_type": kind,
                "default_value": default,
                "values": [default],
            }
            for key, kind, default in _ATTRIBUTES
        ],
    }


def _image(sheet: Sheet, split: str, at: int) -> ET.Element:
    size = {"width": str(sheet.width), "height": str(sheet.height)}
    told = {"id": str(at), "name": sheet.file_name, **({"subset": split} if split else {}), **size}
    image = ET.Element("image", told)
    if sheet.unlabelled:
        ET.SubElement(image, "tag", {"label": UNLABELLED, "source": "manual"})
    for mark in sheet.marks:
        image.append(_box(mark))
    return image


def _box(mark: Mark) -> ET.Element:
    keys = ("xtl", "ytl", "xbr", "ybr")
    corners = dict(zip(keys, map(number, mark.corners), strict=True))
    source = "auto" if mark.guessed else "manual"
    told = {"label": mark.category, "source": source, "occluded": "0", **corners, "z_order": "0"}
    box = ET.Element("box", told)
    values = {name: default for name, _, default in _ATTRIBUTES}
    if mark.score is not None:
        values |= {"score": f"{mark.score:g}", "teacher": mark.teacher}
    values["crowd"] = str(mark.crowd).lower()
    for name, value in values.items():
        ET.SubElement(box, "attribute", {"name": name}).text = value
    return box
