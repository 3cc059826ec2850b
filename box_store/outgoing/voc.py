"""Pascal VOC: `JPEGImages`, `Annotations` and `ImageSets/Main/SPLIT.txt`, corners from 1.

As the VOC2012 development kit's documentation has it. Its corners are whole numbers; fractions of a
pixel are written where there are some, which most readers take.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from box_store.forms.voc import WRITER
from box_store.outgoing.placing import Names, placed
from box_store.outgoing.sheet import Account, Mark, Part, Sheet, number


def write(parts: Sequence[Part], classes: Sequence[str], out: Path, about: str) -> Account:
    """Write into the empty folder `out`. Crowds are difficult objects; images in folders are
    called after these. An image that nobody labelled wholly is in no list, and has an XML file only
    if there are marks to start from.

    Raises DataError for names that cannot be written.
    """
    account, names = Account(), Names(flat=True)
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for part in parts:
        listed = []
        for sheet, image in placed(part, names, account, out / "JPEGImages"):
            if sheet.unlabelled and not sheet.marks:
                continue
            account.marks += len(sheet.marks)
            stem = image.stem
            if not sheet.unlabelled:
                listed.append(stem)
            tree = ET.ElementTree(_annotation(sheet, about))
            ET.indent(tree)
            tree.write(out / "Annotations" / f"{stem}.xml", encoding="utf-8")
        if listed:
            path = out / "ImageSets" / "Main" / f"{part.name}.txt"
            path.write_text("".join(f"{stem}\n" for stem in listed), encoding="utf-8")
    # as CVAT and datumaro want classes that are not VOC's twenty
    rows = "".join(f"{name}:::\n" for name in ("background", *classes))
    (out / "labelmap.txt").write_text(f"# label:color_rgb:parts:actions\n{rows}", encoding="utf-8")
    return account


def _annotation(sheet: Sheet, about: str) -> ET.Element:
    root = ET.Element("annotation")
    ET.SubElement(root, "folder").text = "JPEGImages"
    ET.SubElement(root, "filename").text = sheet.file_name
    source = ET.SubElement(root, "source")
    ET.SubElement(source, "database").text = about
    ET.SubElement(source, "annotation").text = WRITER
    ET.SubElement(source, "image").text = sheet.source or sheet.file_name
    size = ET.SubElement(root, "size")
    for key, value in (("width", sheet.width), ("height", sheet.height), ("depth", 3)):
        ET.SubElement(size, key).text = str(value)
    ET.SubElement(root, "segmented").text = "0"
    for mark in sheet.marks:
        root.append(_object(mark))
    return root


def _object(mark: Mark) -> ET.Element:
    found = ET.Element("object")
    x1, y1, x2, y2 = mark.corners
    ET.SubElement(found, "name").text = mark.category
    ET.SubElement(found, "pose").text = "Unspecified"
    ET.SubElement(found, "truncated").text = "0"
    ET.SubElement(found, "difficult").text = str(int(mark.crowd))
    box = ET.SubElement(found, "bndbox")
    # the first pixel is 1, and the last one belongs to the box
    corners = (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2))
    for key, value in corners:
        ET.SubElement(box, key).text = number(value)
    if mark.score is not None:
        ET.SubElement(found, "score").text = f"{mark.score:g}"
        ET.SubElement(found, "teacher").text = mark.teacher
    return found
