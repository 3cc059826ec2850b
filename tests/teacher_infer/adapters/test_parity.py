"""An adapter's boxes are those of its framework's own inference, on photos and drawn pictures.

Models are random: each is built by its framework, every parameter is moved, and the weights go
through a file to both sides. TEACH_DETR_LONG=1 adds the rest of each zoo, a few minutes; the table
of differences is printed with `-rP`.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from box_store.boxes import Boxes
from teacher_infer.teachers.loaded import finish, load_teacher
from tests.teacher_infer.adapters.parity_case import Case, Pair
from tests.teacher_infer.adapters.parity_frameworks import (
    mmdet_pair,
    student_pair,
    torchvision_pair,
    transformers_pair,
    ultralytics_pair,
)
from tests.teacher_infer.adapters.parity_onnx import onnx_pair

MOST_PX = 1e-3


pytestmark = pytest.mark.slow


def long(framework: str, *models: str, floor: float = 0.05) -> list[Case]:
    return [Case(framework, model, floor) for model in models]


CASES = [
    Case("ultralytics", "yolo11n", 0.3, long=False),
    *long("ultralytics", "yolo11n-seg", "yolo26n", "yolov8n", "rtdetr-l", floor=0.3),
    # a RetinaNet always, with a checkpoint as training leaves it: test_mmdet.py
    Case("mmdet", "retinanet_r18_fpn_1x_coco", 0.1),
    *long(
        "mmdet",
        "faster-rcnn_r50_fpn_1x_coco",
        "mask-rcnn_r50_fpn_1x_coco",
        "cascade-rcnn_r50_fpn_1x_coco",
        "rtmdet_tiny_8xb32-300e_coco",
        "fcos_r50-caffe_fpn_gn-head_1x_coco",
        "atss_r50_fpn_1x_coco",
        "detr_r50_8xb2-150e_coco",
        "conditional-detr_r50_8xb2-50e_coco",
        "deformable-detr-refine-twostage_r50_16xb2-50e_coco",
        "dino-4scale_r50_8xb2-12e_coco",
    ),
    Case("torchvision", "ssdlite320_mobilenet_v3_large", 0.005, long=False),
    Case("torchvision", "fasterrcnn_mobilenet_v3_large_320_fpn", 0.005),
    *long(
        "torchvision",
        "fasterrcnn_resnet50_fpn_v2",
        "maskrcnn_resnet50_fpn",
        "retinanet_resnet50_fpn_v2",
        "fcos_resnet50_fpn",
        "ssd300_vgg16",
        floor=0.02,
    ),
    Case("transformers", "detr", long=False),
    Case("transformers", "rt_detr", long=False),
    *long("transformers", "rt_detr_v2", "d_fine", "yolos", "deformable_detr", "conditional_detr"),
    Case("onnx", "yolox_nano", long=False),
    Case("onnx", "FastestDet", long=False),
    *long("onnx", "human_nanodet", "human_centernet"),
    Case("student", "dino-tiny", 0.01, long=False),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_boxes_are_those_of_the_frameworks_own_inference(
    case: Case, images: list[np.ndarray], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if case.long and not os.environ.get("TEACH_DETR_LONG"):
        pytest.skip("the zoo takes minutes: TEACH_DETR_LONG=1 runs it")
    spec, infer = BUILDERS[case.framework](case, tmp_path, request)
    teacher = load_teacher(replace(spec, threads=1, batch_size=4))
    largest, n_boxes = 0.0, 0
    for image, ours in zip(images, teacher.predict(images), strict=True):
        height, width = image.shape[:2]
        theirs = finish(
            infer(image), width, height, score_floor=case.floor, nms_iou=None, top_k=100
        )
        largest = max(largest, distance(ours, theirs))
        n_boxes += len(ours)
    print(f"{case}: {n_boxes} boxes, max {largest:.1e} px")
    assert n_boxes >= 20, "a comparison of nothing shows nothing"
    assert largest < MOST_PX


def distance(ours: Boxes, theirs: Boxes) -> float:
    """Largest distance of a side from its partner's, in pixels; equals in score may change places.

    A box's partner is the nearest one of its class and score.
    """
    assert len(ours) == len(theirs)
    largest = 0.0
    for a, b in ((ours, theirs), (theirs, ours)):
        for box, score, class_id in zip(a.boxes_xyxy, a.scores, a.class_ids, strict=True):
            like = (b.class_ids == class_id) & (np.abs(b.scores - score) < 1e-5)
            assert like.any(), f"class {class_id}, score {score} is on one side only"
            largest = max(largest, float(np.abs(b.boxes_xyxy[like] - box).max(axis=1).min()))
    return largest


BUILDERS: dict[str, Callable[[Case, Path, Any], Pair]] = {
    "ultralytics": ultralytics_pair,
    "mmdet": mmdet_pair,
    "torchvision": torchvision_pair,
    "transformers": transformers_pair,
    "onnx": onnx_pair,
    "student": student_pair,
}
