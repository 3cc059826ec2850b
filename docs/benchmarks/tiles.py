"""Of how many objects a student finds in large photos, with and without tiles.

    python docs/benchmarks/tiles.py RUN DATA [--split val2017] [--tile 208] [--overlap 0.2]
        [--limit 4] [--boxes 300] [--out FILE]

Recall at IoU 0.5 of the best boxes of each image and of those from a score of 0.3, the share of
these that is right, pictures looked at and CPU seconds. DATA has any form that `teach-detr data`
knows.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from box_store.calibration.matching import HIT, match_boxes
from box_store.forms.opening import open_data
from box_store.pixels import find_image
from student_train.data import read_image
from student_train.predictor import Predictor, load_predictor


def seen(predictor: Predictor, data: Path, split: str, limit: int, boxes: int) -> dict[str, object]:
    """Figures of one way to look."""
    source = open_data(data).split(split)
    coco, ids = source.coco, np.array(predictor.categories.ids)
    objects = hits = sure = right = looks = 0
    start = time.process_time()
    for image in coco.images[:limit]:
        pixels = read_image(find_image(source.images, image.file_name), (image.width, image.height))
        (found,) = predictor.predict([pixels.permute(1, 2, 0).numpy()])
        best = found.top_k(boxes)
        best = replace(best, class_ids=ids[best.class_ids])
        truth = coco.annotations_of(image.id)
        outcome = match_boxes(best, truth, 0.5).outcome
        objects += int((~truth.iscrowd).sum())
        hits += int((outcome == HIT).sum())
        is_sure = best.scores >= 0.3
        sure += int(is_sure.sum())
        right += int((outcome[is_sure] == HIT).sum())
        tiling = predictor.tiling
        looks += 1 if tiling is None else 1 + len(tiling.windows(image.width, image.height))
    return {
        "images": min(limit, len(coco.images)),
        "objects": objects,
        "recall": hits / max(1, objects),
        "recall_from_0.3": right / max(1, objects),
        "precision_from_0.3": right / max(1, sure),
        "looks": looks,
        "cpu_seconds": round(time.process_time() - start, 1),
    }


def main() -> None:
    """Print a line for each way to look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="val2017")
    parser.add_argument("--tile", type=int, default=208)
    parser.add_argument("--overlap", type=float, default=0.2)
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--boxes", type=int, default=300)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    figures = {}
    for name, tile in (("whole", None), (f"tiles of {asked.tile}", asked.tile)):
        predictor = load_predictor(asked.run, "cpu", tile=tile, overlap=asked.overlap)
        figures[name] = seen(predictor, asked.data, asked.split, asked.limit, asked.boxes)
        print(name, json.dumps(figures[name]))
    if asked.out is not None:
        asked.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
