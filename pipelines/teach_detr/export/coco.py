"""COCO results, and COCO annotations made of teachers' boxes (pseudo labels)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from box_store.coco.json_stream import write_array
from box_store.places import files
from box_store.results import exporting
from box_store.results.exporting import detections
from teach_detr.export.chosen import Chosen, one_set


def write_results(chosen: Chosen, out: Path) -> int:
    """A COCO results file of one box set; returns the number of boxes."""
    one_set(chosen, "coco-results")
    return exporting.write_results(out, ((image.id, boxes) for image, _, boxes in chosen.rows()))


def write_annotations(chosen: Chosen, out: Path, *, with_teacher: bool = False) -> int:
    """A COCO annotation file whose annotations are the chosen boxes.

    Its images are those that were seen: an image in which nothing was found has no annotation, one
    that was never shown is not listed. Each annotation keeps its score, and with `with_teacher`,
    which allows several box sets, its teacher. Returns the number of boxes.
    """
    if not with_teacher:
        one_set(chosen, "coco")
    images = (
        {
            "id": image.id,
            "file_name": image.file_name,
            "width": image.width,
            "height": image.height,
        }
        for image in chosen.images
    )
    about = f"boxes of {', '.join(chosen.sets)}, not made by people"
    with files.replacing(out) as file:
        file.write(f'{{"info": {json.dumps({"description": about})},\n'.encode())
        file.write(f'"categories": {json.dumps(chosen.categories.to_json())},\n'.encode())
        file.write(b'"images": ')
        write_array(file, images)
        file.write(b',\n"annotations": ')
        count = write_array(file, _annotations(chosen, with_teacher))
        file.write(b"}\n")
    return count


def _annotations(chosen: Chosen, with_teacher: bool) -> Iterator[dict[str, Any]]:
    number = 0
    for image, name, boxes in chosen.rows():
        for entry in detections(image.id, boxes):
            number += 1
            _, _, width, height = entry["bbox"]
            annotation = {"id": number, **entry, "area": round(width * height, 4), "iscrowd": 0}
            yield annotation | ({"teacher": name} if with_teacher else {})
