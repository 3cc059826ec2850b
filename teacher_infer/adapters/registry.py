"""The adapters there are: what each runs, what to install for it, and the keys it understands."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AdapterInfo:
    """One line of `teacher-infer list`.

    `module` supplies `load` and `weights_files`. `extra` is the name in `teach-detr[extra]`, empty
    where nothing further is needed. `options` maps the adapter's own keys to their help.
    `open_vocabulary`: some of its models are told what to look for, and take prompts.
    """

    name: str
    module: str
    summary: str
    example: str
    extra: str
    licence: str
    options: dict[str, str]
    uses_torch: bool = True
    open_vocabulary: bool = False


COMMON_OPTIONS = {"licence": "licence to record with the boxes (SPDX name)"}

_CLASSES = "file of class names: one a line, or a JSON list (default: the model's, else COCO's 80)"
_WEIGHTS = "checkpoint file, or 'random' (seeded; for tests)"

ADAPTERS = (
    AdapterInfo(
        name="onnx",
        module="teacher_infer.adapters.onnx",
        summary="an ONNX file: YOLOX, NanoDet, CenterNet, FastestDet, or boxes/scores/labels",
        example="yolox=onnx:yolox_nano.onnx,format=yolox",
        extra="onnx",
        licence="unknown",
        uses_torch=False,
        options={
            "format": "yolox | nanodet | centernet | fastestdet | boxes (required)",
            "classes": _CLASSES,
            "image_size": "input size in pixels, S or WxH, where the file leaves it open",
            "resize": "format=boxes: stretch (default) | letterbox",
            "colour": "format=boxes: rgb (default) | bgr",
            "mean": "format=boxes: subtracted, as 123.7/116.3/103.5 (default 0)",
            "std": "format=boxes: divided by, after the mean (default 255)",
            "frame": "format=boxes: input (default; pixels of the input) | unit (0..1)",
        },
    ),
    AdapterInfo(
        name="mmdet",
        module="teacher_infer.adapters.mmdet",
        summary="MMDetection 3: a config (path, or a name among those in its wheel) and weights",
        example="rcnn=mmdet:faster-rcnn_r50_fpn_1x_coco,weights=faster_rcnn.pth",
        extra="mmdet",
        licence="Apache-2.0",
        options={
            "weights": _WEIGHTS + " (required)",
            "classes": _CLASSES,
            "image_size": "S or WxH that the image is scaled to fit into (default: the config's)",
        },
    ),
    AdapterInfo(
        name="ultralytics",
        module="teacher_infer.adapters.ultralytics",
        summary="YOLO and RT-DETR of Ultralytics: a .pt file or name, or a .yaml (random weights)",
        example="yolo=ultralytics:yolo11m.pt,image_size=640",
        extra="ultralytics",
        licence="AGPL-3.0",
        options={"image_size": "longest side that the image is scaled to (default: the model's)"},
    ),
    AdapterInfo(
        name="torchvision",
        module="teacher_infer.adapters.torchvision",
        summary="a builder of torchvision.models.detection",
        example="retina=torchvision:retinanet_resnet50_fpn_v2,weights=DEFAULT",
        extra="",
        licence="BSD-3-Clause",
        options={
            "weights": _WEIGHTS + ", or DEFAULT (downloaded) (required)",
            "classes": "file of class names, which also sets their number (default: COCO's)",
            "image_size": "S or WxH that the image is scaled to fit into (default: the builder's)",
        },
    ),
    AdapterInfo(
        name="transformers",
        module="teacher_infer.adapters.transformers",
        summary="a detection model of Hugging Face transformers: a folder or a hub id",
        example="rtdetr=transformers:PekingU/rtdetr_r50vd",
        extra="transformers",
        licence="unknown",
        options={
            "weights": "'random' builds from the config alone (seeded; for tests)",
            "image_size": "S or WxH that the processor scales to (default: its own)",
            "template": "open vocabulary: text around a class name, which {} stands for",
        },
        open_vocabulary=True,
    ),
    AdapterInfo(
        name="student",
        module="teacher_infer.adapters.student",
        summary="an earlier run of student-train: its folder",
        example="first=student:runs/first",
        extra="",
        licence="unknown",
        options={},
    ),
)
