"""FiftyOne's own importers read what is written for it.

In a process of its own: FiftyOne needs packages that do not go with ours. FIFTYONE_PYTHON names a
Python that has it, where this one has not.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from box_store.forms.opening import open_data
from box_store.outgoing.coco import write_coco
from box_store.outgoing.data_set import write_folder
from teach_detr.export import export_boxes, spec_of
from tests.teach_detr.export.test_export import made_store

PYTHON = os.environ.get("FIFTYONE_PYTHON", sys.executable if find_spec("fiftyone") else "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="no FiftyOne here, and FIFTYONE_PYTHON names none"),
]

SIZE = (80, 60)
BOXES = {"a.jpg": [("dog", 0.0, 0.0, 20.0, 30.0)], "b.jpg": [("cat", 12.5, 7.25, 40.0, 33.5)]}

# importers alone need no database
READ = """
import json, sys, warnings
warnings.filterwarnings("ignore")
from fiftyone.utils import coco, cvat, voc, yolo
folder = sys.argv[1]
importers = {
    "cvat": lambda: cvat.CVATImageDatasetImporter(
        data_path=f"{folder}/cvat/images", labels_path=f"{folder}/cvat/annotations.xml"),
    "voc": lambda: voc.VOCDetectionDatasetImporter(
        data_path=f"{folder}/voc/JPEGImages", labels_path=f"{folder}/voc/Annotations"),
    "yolo": lambda: yolo.YOLOv5DatasetImporter(
        dataset_dir=f"{folder}/yolo", yaml_path=f"{folder}/yolo/data.yaml", split="train"),
    "coco": lambda: coco.COCODetectionDatasetImporter(
        data_path=f"{folder}/coco/train",
        labels_path=f"{folder}/coco/annotations/instances_train.json"),
    "store": lambda: coco.COCODetectionDatasetImporter(dataset_dir=f"{folder}/store"),
}
found = {}
for name, make in importers.items():
    rows = found[name] = []
    with make() as importer:
        for path, _, labels in importer:
            labels = labels["detections"] if isinstance(labels, dict) else labels
            for one in labels.detections if labels is not None else []:
                teacher = one["teacher"] if one.has_field("teacher") else None
                row = [path.rpartition("/")[2], one.label, one.bounding_box, one.confidence]
                rows.append([*row, teacher])
print("FOUND " + json.dumps(found))
"""


def data_set(root: Path) -> Path:
    rows = []
    for number, name in enumerate(BOXES, 1):
        path = root / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*SIZE[::-1], 3), 40 * number, np.uint8)).save(path)
        for label, x1, y1, x2, y2 in BOXES[name]:
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": number,
                    "category_id": 1 + (label == "dog"),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                }
            )
    document = {
        "images": [
            {"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]}
            for number, name in enumerate(BOXES, 1)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": rows,
    }
    (root / "annotations").mkdir()
    (root / "annotations/instances_train.json").write_text(json.dumps(document))
    return root


def test_importers_find_the_same_boxes(tmp_path: Path) -> None:
    data = open_data(data_set(tmp_path / "data"))
    for form in ("cvat", "voc", "yolo"):
        write_folder(data, form, tmp_path / form)
    write_coco(data, tmp_path / "coco")
    # the store's images are eight times as large, and its boxes with them
    rows = {
        number: (name, [[8 * side for side in box] for _, *box in BOXES[name]])
        for number, name in enumerate(BOXES, 1)
    }
    store = made_store(tmp_path / "boxes", rows)
    export_boxes(
        store, "fiftyone", tmp_path / "store", spec_of("fiftyone"), images=tmp_path / "data/train"
    )
    done = subprocess.run(
        [PYTHON, "-c", READ, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"FIFTYONE_DO_NOT_TRACK": "true", "PYTHONPATH": ""},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.rpartition("FOUND ")[2])
    for name, rows_found in found.items():
        assert len(rows_found) == 2, name
        for file, label, box, confidence, teacher in rows_found:
            ((expected, x1, y1, x2, y2),) = BOXES[file]
            corners = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
            # it takes Pascal VOC's corners as they stand, which are counted from 1, and rounds
            # those of CVAT to whole pixels
            slack = {"voc": 1.01, "cvat": 0.5}.get(name, 0.01)
            assert np.array(corners) * [*SIZE, *SIZE] == pytest.approx([x1, y1, x2, y2], abs=slack)
            assert (confidence is None) == (name != "store")
            assert (teacher is None) == (name != "store")
            assert name == "store" or label == expected
