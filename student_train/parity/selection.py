"""What is chosen, against golden sets: the boxes that several teachers fuse into, the top-k
detections.
"""

from __future__ import annotations

from pathlib import Path

import torch

from box_store.boxes import Boxes, to_xyxy
from box_store.fuse import FusionConfig, fuse
from student_train.models.output import Prediction, StudentOutput
from student_train.models.postprocess import top_k
from student_train.parity.golden import Arrays, read_arrays, read_json
from student_train.parity.rows import Row, largest_difference, row, wrong_entries

_NO_TEACHER = (
    "nobody saw this image: the released code invents a full-image box, here there is no term"
)


def check_fusion(folder: Path, name: str = "teach_fusion") -> list[Row]:
    """Boxes of all teachers fused as the released code does: class-wise NMS and a quota."""
    arrays, document = read_arrays(folder / f"{name}.npz"), read_json(folder / f"{name}.json")
    rows: list[Row] = []
    for case in document["cases"]:
        label, kind = case["case"], case["kind"]
        if not case["present"]:
            rows.append(Row(name, label, None, None, "skip", _NO_TEACHER))
            continue
        teachers = {
            each: _teacher(arrays, case["case"], each)
            for each in case["weights"]
            if each in case["present"]
        }
        config = FusionConfig(iou=document["iou_threshold"], weights=case["weights"])
        fused = fuse(teachers, config)
        stem = f"{case['case']}/out"
        same = largest_difference(fused.class_ids, arrays[f"{stem}/labels"])
        boxes = largest_difference(fused.boxes_xyxy, arrays[f"{stem}/boxes_xyxy"])
        scores = largest_difference(fused.scores, arrays[f"{stem}/scores"])
        rows.append(row(name, f"{label}/labels", same, 0, kind))
        rows.append(row(name, f"{label}/boxes", boxes, 1e-3, f"{kind}; pixels"))
        rows.append(row(name, f"{label}/scores", scores, 1e-6, kind))
    return rows


def _teacher(arrays: Arrays, case: str, teacher: str) -> Boxes:
    width, height = (int(v) for v in arrays[f"{case}/size_wh"])
    corners = to_xyxy(arrays[f"{case}/{teacher}/boxes_xywh"])
    scores, labels = (arrays[f"{case}/{teacher}/{kind}"] for kind in ("scores", "labels"))
    return Boxes(corners, scores, labels, width, height)


def check_top_k(folder: Path, name: str = "postprocess_focal") -> list[Row]:
    """Scores, labels and boxes in pixels of the best k pairs of query and class."""
    arrays = read_arrays(folder / f"{name}.npz")
    prediction = Prediction(torch.from_numpy(arrays["logits"]), torch.from_numpy(arrays["boxes"]))
    sizes = torch.from_numpy(arrays["sizes_hw"])
    rows: list[Row] = []
    for key in sorted(k for k in arrays if k.endswith("/scores")):
        label = key.removesuffix("/scores")
        k, image = label.removeprefix("top").split("/")
        found = top_k(StudentOutput([prediction]), sizes, int(k))[int(image)]
        scores = largest_difference(found.scores, arrays[key])
        wrong = wrong_entries(found.labels, arrays[f"{label}/labels"])
        boxes = largest_difference(found.boxes_xyxy, arrays[f"{label}/boxes"])
        rows.append(row(name, f"{label}/scores", scores, 1e-6))
        rows.append(row(name, f"{label}/labels", wrong, 0, "wrong entries"))
        rows.append(row(name, f"{label}/boxes", boxes, 1e-3, "pixels"))
    return rows
