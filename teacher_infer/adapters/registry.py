"""The adapters there are: what each runs, what to install for it, and the keys it understands."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """A key that one adapter alone understands: its help, and what holds where it isn't given."""

    help: str
    default: str = ""


@dataclass(frozen=True)
class AdapterInfo:
    """What `teacher-infer list` says of an adapter.

    `module` supplies `load` and `weights_files`. `extra` is the name in `teach-detr[extra]`, empty
    where nothing further is needed. `models` says how a model is named, `files` what is read of it,
    `libraries` are the distributions behind it, alternatives separated by `|`.
    `open_vocabulary`: some of its models are told what to look for, and take prompts.
    """

    name: str
    module: str
    summary: str
    example: str
    extra: str
    licence: str
    options: dict[str, Option]
    models: tuple[str, ...] = ()
    files: str = ""
    libraries: tuple[str, ...] = ()
    uses_torch: bool = True
    open_vocabulary: bool = False


COMMON_OPTIONS = {"licence": Option("licence to record with the boxes (SPDX name)")}

_REQUIRED = "required"
_CLASSES = "file of class names: one a line, or a JSON list"
_WEIGHTS = Option("checkpoint file, or 'random' (seeded; for tests)", _REQUIRED)

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
            "format": Option("yolox | nanodet | centernet | fastestdet | boxes", _REQUIRED),
            "classes": Option(_CLASSES, "COCO's 80"),
            "image_size": Option("input size in pixels, S or WxH", "the file's, if it says one"),
            "resize": Option("format=boxes: stretch | letterbox", "stretch"),
            "colour": Option("format=boxes: rgb | bgr", "rgb"),
            "mean": Option("format=boxes: subtracted, as 123.7/116.3/103.5", "0"),
            "std": Option("format=boxes: divided by, after the mean", "255"),
            "frame": Option("format=boxes: input (pixels of the input) | unit (0..1)", "input"),
        },
        models=("a path of an .onnx file",),
        files=".onnx",
        libraries=("onnxruntime|onnxruntime-gpu",),
    ),
    AdapterInfo(
        name="mmdet",
        module="teacher_infer.adapters.mmdet",
        summary="MMDetection 3: a config (path, or a name among those in its wheel) and weights",
        example="rcnn=mmdet:faster-rcnn_r50_fpn_1x_coco,weights=faster_rcnn.pth",
        extra="mmdet",
        licence="Apache-2.0",
        options={
            "weights": _WEIGHTS,
            "classes": Option(_CLASSES, "the checkpoint's, the config's, else COCO's 80"),
            "image_size": Option("S or WxH that the image is scaled to fit into", "the config's"),
        },
        models=(
            "a path of a config (.py; it is run: trust it)",
            "the name of a config in mmdet's wheel, without .py",
        ),
        files=".pth or .safetensors, read without running anything of it",
        libraries=("mmdet", "mmengine", "mmcv-lite|mmcv"),
    ),
    AdapterInfo(
        name="ultralytics",
        module="teacher_infer.adapters.ultralytics",
        summary="YOLO and RT-DETR of Ultralytics: a .pt file or name, or a .yaml (random weights)",
        example="yolo=ultralytics:yolo11m.pt,image_size=640",
        extra="ultralytics",
        licence="AGPL-3.0",
        options={
            "image_size": Option("longest side that the image is scaled to", "the model's, or 640")
        },
        models=(
            "a path of a .pt file (a pickle, which can run code: trust it)",
            "a published name, as yolo11m.pt, yolo26n.pt, rtdetr-l.pt (downloaded once)",
            "a model's .yaml: random weights, for tests",
        ),
        files=".pt",
        libraries=("ultralytics",),
    ),
    AdapterInfo(
        name="torchvision",
        module="teacher_infer.adapters.torchvision",
        summary="a builder of torchvision.models.detection",
        example="retina=torchvision:retinanet_resnet50_fpn_v2,weights=DEFAULT",
        extra="",
        licence="BSD-3-Clause",
        options={
            "weights": Option(
                "checkpoint file, DEFAULT (downloaded), or 'random' (seeded; for tests)", _REQUIRED
            ),
            "classes": Option("file of class names, which also sets their number", "COCO's"),
            "image_size": Option("S or WxH that the image is scaled to fit into", "the builder's"),
        },
        models=("the name of a builder, as fasterrcnn_resnet50_fpn_v2, fcos_resnet50_fpn",),
        files=".pth or .safetensors, read without running anything of it",
        libraries=("torchvision",),
    ),
    AdapterInfo(
        name="transformers",
        module="teacher_infer.adapters.transformers",
        summary="a detection model of Hugging Face transformers: a folder or a hub id",
        example="rtdetr=transformers:PekingU/rtdetr_r50vd",
        extra="transformers",
        licence="unknown",
        options={
            "weights": Option("'random' builds from the config alone (seeded; for tests)"),
            "image_size": Option("S or WxH that the processor scales to", "the processor's"),
            "template": Option(
                "open vocabulary: the words around a class name, which {} stands for",
                "a photo of a {} for OWL, else {}",
            ),
        },
        models=(
            "a folder, as save_pretrained leaves it",
            "the id of a model on the hub (downloaded once, or found in its cache)",
            "Grounding DINO, OWL-ViT and OWLv2, as google/owlv2-base-patch16-ensemble: they are "
            "asked for the data set's class names, or for what prompts.CLASS=TEXT says",
        ),
        files="model.safetensors with config.json and the processor's files",
        libraries=("transformers",),
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
        models=("a run folder", "a .safetensors file of a run"),
        files=".safetensors",
        libraries=("torch", "timm"),
    ),
)
