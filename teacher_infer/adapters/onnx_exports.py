"""ONNX files that tell by names, shapes and metadata who exported them, and so how to read them.

Ultralytics (YOLO with and without NMS, RT-DETR), the official RT-DETR and D-FINE scripts, RF-DETR,
Hugging Face transformers, and TensorFlow's detection API by way of tf2onnx. The facts are those of
the exporters; where a file leaves something open it isn't recognised, and `format=` has to say it.
"""

import ast
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from teacher_infer.adapters.class_names import COCO_91
from teacher_infer.adapters.onnx_boxes import FinishedBoxes, Style, corners
from teacher_infer.adapters.onnx_formats import Format, Outputs, Prepared, prepared_input
from teacher_infer.adapters.protocol import AdapterError, Detections, Misread
from teacher_infer.adapters.resize import centred, smooth, stretch

_IMAGENET_MEAN, _IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_CONFIG, _PREPROCESSOR = "config.json", "preprocessor_config.json"
# of transformers: models whose scores are a softmax that ends in "no object"; all others' are
# sigmoids
_SOFTMAX = ("detr", "yolos", "table-transformer")
# and those whose processors don't normalise by default; all others' take ImageNet's numbers
_UNIT = ("rt_detr", "rt_detr_v2", "d_fine", "deim")
_TASKS = ("detect", "segment", "pose")


@dataclass(frozen=True)
class Signature:
    """What an ONNX file says of itself: shapes of inputs and outputs by name, and metadata."""

    path: Path
    inputs: dict[str, list[Any]]
    outputs: dict[str, list[Any]]
    takes_bytes: bool = False
    metadata: dict[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        """For messages: `output0 [1, 84, 8400]`."""
        return ", ".join(f"{name} {shape}" for name, shape in self.outputs.items())


def recognise(signature: Signature) -> str | None:
    """The name of the export in `EXPORTS`, None for a file that nothing tells."""
    names, inputs = set(signature.outputs), set(signature.inputs)
    if signature.metadata.get("author") == "Ultralytics" and "names" in signature.metadata:
        return "ultralytics"
    if {"logits", "pred_boxes"} <= names and "pixel_values" in inputs:
        return "transformers" if (signature.path.parent / _CONFIG).is_file() else None
    if "orig_target_sizes" in inputs and names == {"labels", "boxes", "scores"}:
        return "rtdetr"
    if {"dets", "labels"} <= names and all(
        len(signature.outputs[name]) == 3 for name in ("dets", "labels")
    ):
        return "rfdetr"
    if {"detection_boxes", "detection_scores", "detection_classes"} <= names:
        return "tensorflow"
    return None


def companions(path: Path, outputs: set[str]) -> list[Path]:
    """Files beside an ONNX file that say how to read it."""
    if not {"logits", "pred_boxes"} <= outputs:
        return []
    found = [path.parent / name for name in (_CONFIG, _PREPROCESSOR)]
    return [file for file in found if file.is_file()]


class Ultralytics(Format):
    """Exports of Ultralytics 8: everything is in the metadata.

    YOLO: the image in the middle of a grey canvas, RGB on the 0..1 scale. Without NMS [4 + classes,
    anchors]: centre and size in pixels of the input, then scores; an anchor is a detection of its
    best class. With NMS (and heads trained end to end) rows x1, y1, x2, y2, score, class.
    RT-DETR: stretched; centre and size in fractions; rows of 4 + classes, or since 8.4 of 6.
    """

    nms_iou = 0.7

    def __init__(self, signature: Signature) -> None:
        facts = {key: _literal(value) for key, value in signature.metadata.items()}
        names = facts["names"]
        if not isinstance(names, dict) or facts.get("task", "detect") not in _TASKS:
            raise AdapterError(
                f"{signature.path}: an Ultralytics export for {facts.get('task')!r}: expected one "
                f"of {', '.join(_TASKS)}, which have upright boxes"
            )
        self.class_names = tuple(str(names.get(index, "")) for index in range(max(names) + 1))
        super().__init__(len(self.class_names))
        height, width = facts.get("imgsz", (640, 640))
        self.image_size = (int(width), int(height))
        head = str(facts.get("head") or facts.get("description", "")).lower()
        self._is_rtdetr = "rtdetr" in head.replace("-", "").replace("_", "")
        shape = signature.outputs[next(iter(signature.outputs))]
        told = facts.get("args")
        done = (isinstance(told, dict) and bool(told.get("nms"))) or facts.get("end2end") is True
        self._is_finished = done or self._is_rtdetr or shape[-1] == 6
        if self._is_finished:
            self.nms_iou = None

    def prepare(self, image: np.ndarray, width: int, height: int) -> Prepared:
        """As `Format.prepare`."""
        place = stretch if self._is_rtdetr else centred
        canvas, placement = place(image, width, height)
        tensor = canvas.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        return prepared_input(tensor, placement, image)

    def decode(self, outputs: Outputs, prepared: Prepared, floor: float) -> Detections:
        """As `Format.decode`."""
        # a second output holds prototypes of masks
        rows = next(iter(outputs.values())).astype(np.float32)
        if not self._is_finished:
            rows = rows.T
        if rows.ndim != 2 or rows.shape[1] < (6 if self._is_finished else 4 + self.n_classes):
            raise Misread(
                f"an Ultralytics export of {self.n_classes} classes gave {list(rows.shape)} numbers"
            )
        if self._is_rtdetr:
            height, width = prepared.tensor.shape[1:]
            boxes = corners(rows[:, :4], "cxcywh") * np.array(
                [width, height, width, height], np.float32
            )
        else:
            boxes = rows[:, :4] if self._is_finished else corners(rows[:, :4], "cxcywh")
        boxes = prepared.placement.to_image(boxes)
        if self._is_finished and rows.shape[1] != 4 + self.n_classes:
            return Detections(boxes, rows[:, 4], rows[:, 5])
        scores = rows[:, 4 : 4 + self.n_classes]
        if self._is_rtdetr:
            at, classes = np.nonzero(~(scores < floor))
            return Detections(boxes[at], scores[at, classes], classes)
        return Detections(boxes, scores.max(axis=1), scores.argmax(axis=1))


class Queries(Format):
    """DETRs whose queries come as they are: boxes [Q, 4] in fractions (centre, size) and logits
    [Q, classes], as transformers and RF-DETR export them; stretched, RGB.

    softmax: the last logit is "no object", and a query has its best class; otherwise scores are
    sigmoids, and every class of a query from the floor on is a detection. n_logits: how many there
    are a query, where the file says it.
    """

    nms_iou = None

    def __init__(
        self,
        names: tuple[str, ...] | None,
        roles: tuple[str, str],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        softmax: bool = False,
        n_logits: object = None,
    ) -> None:
        super().__init__(len(names or ()))
        self.class_names = names
        self._boxes, self._logits = roles
        self._mean, self._std = np.array(mean, np.float32), np.array(std, np.float32)
        self._softmax = softmax
        self._n_logits = n_logits

    def complete(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """As `Format.complete`: sigmoids may have a slot for no class behind the others."""
        spare = not self._softmax and len(names) + 1 == self._n_logits
        return (*names, "background") if spare else names

    def prepare(self, image: np.ndarray, width: int, height: int) -> Prepared:
        """As `Format.prepare`."""
        canvas, placement = smooth(image, width, height)
        tensor = (canvas.astype(np.float32) - self._mean) / self._std
        return prepared_input(tensor.transpose(2, 0, 1), placement, image)

    def decode(self, outputs: Outputs, prepared: Prepared, floor: float) -> Detections:
        """As `Format.decode`."""
        height, width = prepared.tensor.shape[1:]
        logits = outputs[self._logits].astype(np.float32)
        n_classes = logits.shape[1] - self._softmax
        if n_classes != self.n_classes:
            raise Misread(
                f"the model has {n_classes} classes, but there are {self.n_classes} class names: "
                "give the right list with classes=FILE"
            )
        boxes = corners(outputs[self._boxes].astype(np.float32), "cxcywh")
        boxes = prepared.placement.to_image(
            boxes * np.array([width, height, width, height], np.float32)
        )
        if self._softmax:
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            scores = (powers / powers.sum(axis=1, keepdims=True))[:, :-1]
            return Detections(boxes, scores.max(axis=1), scores.argmax(axis=1))
        scores = 1 / (1 + np.exp(-logits))
        at, classes = np.nonzero(~(scores < floor))
        return Detections(boxes[at], scores[at, classes], classes)


def _transformers(signature: Signature) -> Format:
    folder = signature.path.parent
    config = _json(folder / _CONFIG)
    kind = str(config.get("model_type", ""))
    labels = {int(key): str(value) for key, value in config.get("id2label", {}).items()}
    names = tuple(labels.get(index, "") for index in range(max(labels, default=-1) + 1)) or None
    mean, std = _normalisation(folder / _PREPROCESSOR, kind)
    made = Queries(names, ("pred_boxes", "logits"), mean, std, softmax=kind in _SOFTMAX)
    made.image_size = _size(folder / _PREPROCESSOR)
    return made


def _normalisation(path: Path, kind: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of RGB on the 0..255 scale: the processor's, or the kind's own."""
    raw = (0.0,), (255.0,)
    if not path.is_file():
        return raw if kind in _UNIT else (_IMAGENET_MEAN, _IMAGENET_STD)
    told = _json(path)
    if not told.get("do_rescale", True):
        raise AdapterError(f"{path}: do_rescale is off: give this file as format=boxes can read it")
    scale = 1 / float(told.get("rescale_factor", 1 / 255))
    if not told.get("do_normalize", kind not in _UNIT):
        return (0.0,), (scale,)
    mean = told.get("image_mean") or [value / 255 for value in _IMAGENET_MEAN]
    std = told.get("image_std") or [value / 255 for value in _IMAGENET_STD]
    return tuple(scale * value for value in mean), tuple(scale * value for value in std)


def _size(path: Path) -> tuple[int, int] | None:
    size = _json(path).get("size") if path.is_file() else None
    if isinstance(size, dict) and {"width", "height"} <= size.keys():
        return int(size["width"]), int(size["height"])
    return None


def _rfdetr(signature: Signature) -> Format:
    # one slot a class, and one that stands for none; COCO's are numbered by its category ids
    n = signature.outputs["labels"][2]
    names = COCO_91 if n == len(COCO_91) else None
    return Queries(names, ("dets", "labels"), _IMAGENET_MEAN, _IMAGENET_STD, n_logits=n)


def _rtdetr(signature: Signature) -> Format:
    return FinishedBoxes(0, Style(place="smooth"))


def _tensorflow(signature: Signature) -> Format:
    # labels are COCO's category ids, or count a list of one's own from 1
    if not signature.takes_bytes:
        raise AdapterError(
            f"{signature.path}: an export of TensorFlow's detection API whose input isn't uint8: "
            "say format=boxes,layout=yxyx,frame=unit,first_label=1 and how its input is made, with "
            "mean= and std="
        )
    style = Style(mean=(0.0,), std=(1.0,), layout="yxyx", frame="unit")
    made = FinishedBoxes(len(COCO_91), style)
    made.class_names = COCO_91
    return made


EXPORTS: dict[str, Callable[[Signature], Format]] = {
    "ultralytics": Ultralytics,
    "transformers": _transformers,
    "rtdetr": _rtdetr,
    "rfdetr": _rfdetr,
    "tensorflow": _tensorflow,
}


def _literal(text: str) -> Any:
    """A value of metadata: numbers, lists and tables are written as Python has them."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"{path}: can't be read as JSON: {error}") from error
    if not isinstance(document, dict):
        raise AdapterError(f"{path}: expected a table, got {type(document).__name__}")
    return document
