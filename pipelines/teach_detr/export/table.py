"""The chosen boxes as CSV."""

import csv
import io
from pathlib import Path

from box_store.places import files
from teach_detr.export.chosen import Chosen

COLUMNS = (
    *("teacher", "image_id", "file_name", "category_id", "category", "score"),
    *("x1", "y1", "x2", "y2"),
)


def write_csv(chosen: Chosen, out: Path) -> int:
    """A row a box, corners in pixels of the original image; returns the number of boxes."""
    names = {item.id: item.name for item in chosen.categories.items}
    count = 0
    with files.replacing(out) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for image, teacher, boxes in chosen.rows():
            for key, score, corners in zip(
                boxes.class_ids.tolist(),
                boxes.scores.tolist(),
                boxes.boxes_xyxy.round(4).tolist(),
                strict=True,
            ):
                row = (teacher, image.id, image.file_name, key, names[key], round(score, 5))
                writer.writerow((*row, *corners))
                count += 1
        # the file beneath is closed, flushed and renamed by its owner
        text.detach()
    return count
