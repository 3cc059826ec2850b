"""An adapter's boxes are those of its framework's own inference, on photos and drawn pictures.

Models are random: each is built by its framework, every parameter is moved, and the weights go
through a file to both sides. TEACH_DETR_LONG=1 adds the rest of each zoo, a few minutes; the table
of differences is printed with `-rP`.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from box_store.boxes import Boxes
from teacher_infer.adapters.loading import quiet
from teacher_infer.adapters.protocol import AdapterSpec, Detections
from teacher_infer.teachers.loaded import finish, load_teacher

# what a framework itself finds in an image (H x W x 3, uint8, RGB)
Infer = Callable[[np.ndarray], Detections]
# the teacher, and its framework's inference with the same weights
Pair = tuple[AdapterSpec, Infer]

MOST_PX = 1e-3
SIDE = 192
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Case:
    """One model of one framework, and the score from which on its boxes are compared."""

    framework: str
    model: str
    floor: float = 0.05
    long: bool = True

    def __str__(self) -> str:
        return f"{self.framework}-{self.model}"


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


def disturb(model: Any, spread: float = 1.0) -> None:
    """Move every number of a model, statistics included; raise class biases that say `nothing`."""
    generator = torch.Generator().manual_seed(11)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float32)

    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if name.endswith("running_var"):
            tensor.mul_(1 + 0.1 * noise(tensor).abs())
        elif tensor.ndim == 1 and tensor.numel() and tensor.mean() < -2:
            tensor.copy_(noise(tensor) * spread - 2)
        else:
            tensor.add_(noise(tensor) * (0.05 * tensor.std(correction=0) + 0.005))


def _ultralytics(case: Case, folder: Path, request: Any) -> Pair:
    from teacher_infer.adapters import ultralytics as adapter

    library = adapter._import_library()
    kind = library.RTDETR if case.model.startswith("rtdetr") else library.YOLO
    path = str(folder / f"{case.model}.pt")
    with quiet(), adapter.seeded(), torch.no_grad():
        built = kind(f"{case.model}.yaml")
        disturb(built.model, spread=1.5)
        built.save(path)
        model = kind(path)

    def infer(image: np.ndarray) -> Detections:
        bgr = np.ascontiguousarray(image[..., ::-1])
        found = model.predict(bgr, conf=case.floor, imgsz=SIDE, max_det=300, verbose=False)[0].boxes
        return Detections(found.xyxy.numpy(), found.conf.numpy(), found.cls.numpy())

    return AdapterSpec(
        "ultralytics", path, score_floor=case.floor, options={"image_size": str(SIDE)}
    ), infer


def _mmdet(case: Case, folder: Path, request: Any) -> Pair:
    from teacher_infer.adapters import mmcv_ops
    from teacher_infer.adapters import mmdet as adapter

    mmcv_ops.install()
    with quiet():
        from mmdet.apis import inference_detector, init_detector
        from mmengine.config import Config

        named = adapter._config_path(AdapterSpec("mmdet", case.model))
        config = Config.fromfile(named)
        # DINO's 900 queries are chosen among the tokens: there have to be as many
        side = 416 if "dino" in case.model else SIDE
        for node in adapter._nodes(config.test_dataloader.dataset.pipeline):
            kind = node.get("type", "")
            if kind.endswith("Resize") and "scale" in node:
                node["scale"] = (side, side)
            elif kind.endswith("Pad") and node.get("size") is not None:
                node["size"] = (side, side)
        for node in adapter._nodes(config.model):
            if "score_thr" in node:
                node["score_thr"] = case.floor
        path, weights = str(folder / "config.py"), str(folder / "weights.pth")
        config.dump(path)
        with adapter.seeded(), torch.no_grad():
            model = init_detector(path, None, device="cpu")
            disturb(model)
            for name, parameter in model.named_parameters():
                if name.endswith("fc_cls.weight"):
                    # a softmax over classes that are all alike stays below any floor
                    parameter.mul_(60)
            torch.save({"state_dict": model.state_dict(), "meta": {}}, weights)

    def infer(image: np.ndarray) -> Detections:
        with quiet():
            found: Any = inference_detector(model, np.ascontiguousarray(image[..., ::-1]))
        found = found.pred_instances
        return Detections(found.bboxes.numpy(), found.scores.numpy(), found.labels.numpy())

    return AdapterSpec("mmdet", path, score_floor=case.floor, options={"weights": weights}), infer


def _torchvision(case: Case, folder: Path, request: Any) -> Pair:
    from torchvision.models import detection
    from torchvision.transforms.functional import pil_to_tensor

    two_stage = "rcnn" in case.model
    settings: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": 91}
    settings["box_score_thresh" if two_stage else "score_thresh"] = case.floor
    options = {"weights": str(folder / "weights.pth")}
    if not case.model.startswith("ssd"):
        settings |= {"min_size": SIDE, "max_size": 2 * SIDE}
        options["image_size"] = f"{2 * SIDE}x{SIDE}"
    torch.manual_seed(3)
    model = getattr(detection, case.model)(**settings).eval()
    with torch.no_grad():
        disturb(model)
        head = model.roi_heads.box_predictor.cls_score if two_stage else None
        if head is not None:
            # enough for scores to differ
            head.weight.mul_(20)
    torch.save(model.state_dict(), options["weights"])

    @torch.inference_mode()
    def infer(image: np.ndarray) -> Detections:
        found = model([pil_to_tensor(Image.fromarray(image)) / 255])[0]
        return Detections(*(found[key].numpy() for key in ("boxes", "scores", "labels")))

    return AdapterSpec("torchvision", case.model, score_floor=case.floor, options=options), infer


def _transformers(case: Case, folder: Path, request: Any) -> Pair:
    import transformers

    from teacher_infer.adapters.loading import seeded

    name, processor_name, settings = TRANSFORMERS[case.model]
    with quiet(), seeded(), torch.no_grad():
        config = getattr(transformers, f"{name}Config")(**settings(transformers))
        built = getattr(transformers, f"{name}ForObjectDetection")(config)
        disturb(built)
        built.save_pretrained(folder)
        size = {"height": SIDE, "width": SIDE}
        if processor_name != "RTDetr":
            size = {"shortest_edge": 96, "longest_edge": SIDE}
        getattr(transformers, f"{processor_name}ImageProcessor")(size=size).save_pretrained(folder)
        processor: Any = transformers.AutoImageProcessor.from_pretrained(folder)
        model: Any = transformers.AutoModelForObjectDetection.from_pretrained(folder).eval()

    @torch.inference_mode()
    def infer(image: np.ndarray) -> Detections:
        with quiet():
            outputs = model(**processor(images=Image.fromarray(image), return_tensors="pt"))
            found = processor.post_process_object_detection(
                outputs, threshold=case.floor, target_sizes=[image.shape[:2]]
            )[0]
        return Detections(*(found[key].numpy() for key in ("boxes", "scores", "labels")))

    return AdapterSpec("transformers", str(folder), score_floor=case.floor), infer


def _resnet(library: Any, out_features: Sequence[str] = ("stage4",)) -> dict[str, Any]:
    backbone = library.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        out_features=list(out_features),
    )
    return {
        "backbone": None,
        "backbone_config": backbone,
        "use_timm_backbone": False,
        "use_pretrained_backbone": False,
    }


def _small(library: Any, out_features: Sequence[str] = ("stage4",)) -> dict[str, Any]:
    sizes = dict.fromkeys(("encoder_layers", "decoder_layers"), 2)
    sizes |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)
    sizes |= dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "d_model"), 32)
    return {**sizes, "num_queries": 30, "num_labels": 5, **_resnet(library, out_features)}


def _hybrid(library: Any, backbone: str) -> dict[str, Any]:
    layers: Any = {"embedding_size": 8, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
    if backbone == "HGNetV2Config":
        layers |= {
            "stem_channels": [3, 8, 8],
            "stage_in_channels": [8, 8, 8, 8],
            "stage_mid_channels": [8, 8, 8, 8],
            "stage_out_channels": [8, 8, 8, 8],
            "stage_num_blocks": [1, 1, 1, 1],
            "stage_numb_of_layers": [1, 1, 1, 1],
        }
        layers.pop("embedding_size")
    config = getattr(library, backbone)(**layers, out_features=["stage2", "stage3", "stage4"])
    return {
        "backbone_config": config,
        "encoder_hidden_dim": 32,
        "encoder_in_channels": [8, 8, 8],
        "encoder_ffn_dim": 32,
        "encoder_attention_heads": 2,
        "feat_strides": [8, 16, 32],
        "d_model": 32,
        "decoder_in_channels": [32, 32, 32],
        "decoder_ffn_dim": 32,
        "decoder_layers": 2,
        "decoder_attention_heads": 2,
        "decoder_n_points": 4,
        "num_queries": 30,
        "num_labels": 5,
        "num_feature_levels": 3,
    }


def _yolos(library: Any) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": [96, 192],
        "num_detection_tokens": 30,
        "num_labels": 5,
    }


# model -> (class prefix, prefix of its processor, what its config is given)
TRANSFORMERS: dict[str, tuple[str, str, Callable[[Any], dict[str, Any]]]] = {
    "detr": ("Detr", "Detr", _small),
    "conditional_detr": ("ConditionalDetr", "ConditionalDetr", _small),
    "deformable_detr": (
        "DeformableDetr",
        "DeformableDetr",
        lambda library: _small(library, ("stage2", "stage3", "stage4")),
    ),
    "rt_detr": ("RTDetr", "RTDetr", lambda library: _hybrid(library, "RTDetrResNetConfig")),
    "rt_detr_v2": ("RTDetrV2", "RTDetr", lambda library: _hybrid(library, "RTDetrResNetConfig")),
    "d_fine": ("DFine", "RTDetr", lambda library: _hybrid(library, "HGNetV2Config")),
    "yolos": ("Yolos", "Yolos", _yolos),
}


def _student(case: Case, folder: Path, request: Any) -> Pair:
    from student_train.predictor import load_predictor

    run: Path = request.getfixturevalue("student_run")
    predictor = load_predictor(run, "cpu")

    def infer(image: np.ndarray) -> Detections:
        found = predictor.predict([image])[0]
        return Detections(found.boxes_xyxy, found.scores, found.class_ids)

    return AdapterSpec("student", str(run), score_floor=case.floor), infer


def _onnx(case: Case, folder: Path, request: Any) -> Pair:
    """Against the demos of the projects that made the files: their steps, cell by cell."""
    import onnxruntime

    path = request.getfixturevalue("shared") / "teachers" / f"{case.model}.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    decode, nms_iou = ONNX[case.model]

    def infer(image: np.ndarray) -> Detections:
        boxes, scores, labels = decode(
            lambda tensor: session.run(None, {entry.name: tensor[None].astype(np.float32)}),
            image,
            case.floor,
        )
        keep = torchvision.ops.batched_nms(boxes, scores, labels, nms_iou)
        return Detections(boxes[keep].numpy(), scores[keep].numpy(), labels[keep].numpy())

    name = {"yolox_nano": "yolox", "FastestDet": "fastestdet"}.get(case.model)
    options = {"format": name or case.model.removeprefix("human_")}
    return AdapterSpec("onnx", str(path), score_floor=case.floor, options=options), infer


Run = Callable[[np.ndarray], list[np.ndarray]]
Found = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _yolox(run: Run, image: np.ndarray, floor: float) -> Found:
    """YOLOX, demo/ONNXRuntime: `preproc` and `demo_postprocess`."""
    import cv2

    height, width = image.shape[:2]
    ratio = min(416 / height, 416 / width)
    small = cv2.resize(image[..., ::-1], (int(width * ratio), int(height * ratio)))
    canvas = np.full((416, 416, 3), 114, np.uint8)
    canvas[: small.shape[0], : small.shape[1]] = small
    output = torch.from_numpy(run(canvas.transpose(2, 0, 1))[0][0])
    centres, sizes, start = [], [], 0
    for stride in (8, 16, 32):
        side = 416 // stride
        y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        level = output[start : start + side * side]
        centres.append((level[:, :2] + torch.stack([x.flatten(), y.flatten()], 1)) * stride)
        sizes.append(level[:, 2:4].exp() * stride)
        start += side * side
    centre, size = torch.cat(centres), torch.cat(sizes)
    boxes = torch.cat([centre - size / 2, centre + size / 2], 1) / ratio
    scores = output[:, 4:5] * output[:, 5:]
    rows, labels = (scores >= floor).nonzero(as_tuple=True)
    return boxes[rows], scores[rows, labels], labels


def _fastestdet(run: Run, image: np.ndarray, floor: float) -> Found:
    """FastestDet, example/onnx-runtime/runtime.py: `detection`."""
    import math

    import cv2

    height, width = image.shape[:2]
    small = cv2.resize(image[..., ::-1], (352, 352), interpolation=cv2.INTER_LINEAR)
    grid = run(small.transpose(2, 0, 1) / 255)[0][0]
    rows, columns = grid.shape[1:]
    found = []
    for row in range(rows):
        for column in range(columns):
            cell = grid[:, row, column].tolist()
            label = max(range(80), key=lambda index: cell[5 + index])
            score = cell[0] ** 0.6 * cell[5 + label] ** 0.4
            if score < floor:
                continue
            x = (math.tanh(cell[1]) + column) / columns * width
            y = (math.tanh(cell[2]) + row) / rows * height
            half_w = width / (1 + math.exp(-cell[3])) / 2
            half_h = height / (1 + math.exp(-cell[4])) / 2
            found.append((x - half_w, y - half_h, x + half_w, y + half_h, score, label))
    rows_ = torch.tensor(found, dtype=torch.float32).reshape(-1, 6)
    return rows_[:, :4], rows_[:, 4], rows_[:, 5].long()


def _nanodet(run: Run, image: np.ndarray, floor: float) -> Found:
    """NanoDet's head: the expectation of each side's distribution, in strides."""
    import cv2

    side = 416
    small = cv2.resize(image[..., ::-1], (side, side)).astype(np.float32)
    small = (small - [103.53, 116.28, 123.675]) / [57.375, 57.12, 58.395]
    outputs = [torch.from_numpy(one[0]) for one in run(small.transpose(2, 0, 1))]
    scale = torch.tensor([image.shape[1], image.shape[0]] * 2) / side
    parts = []
    for stride in (8, 16, 32):
        cells = (side // stride) ** 2
        classes, bins = (next(one for one in outputs if one.shape == (cells, n)) for n in (80, 44))
        distances = torch.nn.functional.softmax(bins.reshape(cells, 4, 11), -1) @ torch.arange(11.0)
        index = torch.arange(cells)
        centre = torch.stack([index % (side // stride), index // (side // stride)], 1) + 0.5
        corners = torch.cat([centre - distances[:, :2], centre + distances[:, 2:]], 1) * stride
        rows, labels = (classes >= floor).nonzero(as_tuple=True)
        parts.append((corners[rows] * scale, classes[rows, labels], labels))
    boxes, scores, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    return boxes, scores, labels


def _centernet(run: Run, image: np.ndarray, floor: float) -> Found:
    """CenterNet: the file ends in its own detections, in pixels of the stretched input."""
    import cv2

    small = cv2.resize(image, (512, 512))
    (rows,) = [one[0] for one in run(small) if one.shape[-1] == 6]
    found = torch.from_numpy(rows[rows[:, 4] >= floor])
    scale = torch.tensor([image.shape[1], image.shape[0]] * 2) / 512
    return found[:, :4] * scale, found[:, 4], found[:, 5].long()


ONNX: dict[str, tuple[Callable[[Run, np.ndarray, float], Found], float]] = {
    "yolox_nano": (_yolox, 0.6),
    "FastestDet": (_fastestdet, 0.45),
    "human_nanodet": (_nanodet, 0.6),
    "human_centernet": (_centernet, 0.6),
}

BUILDERS: dict[str, Callable[[Case, Path, Any], Pair]] = {
    "ultralytics": _ultralytics,
    "mmdet": _mmdet,
    "torchvision": _torchvision,
    "transformers": _transformers,
    "onnx": _onnx,
    "student": _student,
}
