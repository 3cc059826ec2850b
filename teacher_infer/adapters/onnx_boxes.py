"""`format=boxes`: ONNX detectors whose outputs are finished boxes, scores and labels.

That is how torchvision, mmdeploy and the RT-DETR family export. Outputs are recognised by name or
shape: boxes [B, N, 4] (or [B, N, 5] with the score in the last column), scores [B, N], labels
[B, N]; the batch dimension may be missing where the model takes one image. Models that take the
original sizes as a second input (`orig_target_sizes`) return boxes in pixels of the image.
"""

import numpy as np

from box_store.errors import UsageError, nearest
from teacher_infer.adapters.onnx_formats import Format, Outputs, Prepared, prepared_input
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec, Detections
from teacher_infer.adapters.resize import letterbox, stretch

_NAMES = {
    "boxes": ("box", "dets"),
    "scores": ("score", "conf"),
    "labels": ("label", "class"),
}


class FinishedBoxes(Format):
    """The generic format; the options resize, colour, mean, std and frame describe the model.

    The defaults are RGB on the 0..1 scale, stretched, boxes in pixels of the input.
    """

    nms_iou = None

    def __init__(self, n_classes: int, spec: AdapterSpec) -> None:
        super().__init__(n_classes)
        self._place = {"stretch": stretch, "letterbox": letterbox}[
            _choice(spec, "resize", ("stretch", "letterbox"))
        ]
        self._bgr = _choice(spec, "colour", ("rgb", "bgr")) == "bgr"
        self._unit = _choice(spec, "frame", ("input", "unit")) == "unit"
        self._mean = _triple(spec, "mean", 0.0)
        self._std = _triple(spec, "std", 255.0)
        # set where the model is told the original sizes, and so has scaled its boxes itself
        self.boxes_in_image = False

    def prepare(self, image: np.ndarray, width: int, height: int) -> Prepared:
        """As `Format.prepare`."""
        canvas, placement = self._place(image, width, height)
        pixels = canvas[..., ::-1] if self._bgr else canvas
        tensor = (pixels.astype(np.float32) - self._mean) / self._std
        return prepared_input(tensor.transpose(2, 0, 1), placement, image)

    def split(self, outputs: Outputs, n_images: int) -> list[Outputs]:
        """As `Format.split`; outputs of a single image may come without batch dimension."""
        named = _named(outputs)
        if named["boxes"].ndim == 2:
            if n_images != 1:
                raise AdapterError("format=boxes: the boxes of several images came as one list")
            return [named]
        return super().split(named, n_images)

    def decode(self, outputs: Outputs, prepared: Prepared, floor: float) -> Detections:
        """As `Format.decode`."""
        boxes = outputs["boxes"].astype(np.float32)
        scores = outputs["scores"] if "scores" in outputs else boxes[:, 4]
        boxes = boxes[:, :4]
        height, width = prepared.tensor.shape[1:]
        if self._unit:
            boxes = boxes * np.array([width, height, width, height], np.float32)
        if not self.boxes_in_image:
            boxes = prepared.placement.to_image(boxes)
        return Detections(boxes, scores, outputs["labels"].astype(np.int64))


def _named(outputs: Outputs) -> Outputs:
    """The outputs under the names boxes, scores and labels."""
    named: Outputs = {}
    for role, parts in _NAMES.items():
        for name, value in outputs.items():
            if role not in named and any(part in name.lower() for part in parts):
                named[role] = value
    for value in outputs.values():
        if any(value is taken for taken in named.values()):
            continue
        if value.ndim >= 2 and value.shape[-1] in (4, 5):
            named.setdefault("boxes", value)
        elif value.dtype.kind in "iu":
            named.setdefault("labels", value)
        elif value.dtype.kind == "f":
            named.setdefault("scores", value)
    boxes = named.get("boxes")
    has_scores = boxes is not None and (boxes.shape[-1] == 5 or "scores" in named)
    if boxes is None or boxes.shape[-1] not in (4, 5) or not has_scores or "labels" not in named:
        shapes = {name: list(value.shape) for name, value in outputs.items()}
        raise AdapterError(
            "format=boxes: expected outputs boxes [B, N, 4], scores [B, N] and labels [B, N] "
            f"(or dets [B, N, 5] and labels), got {shapes}"
        )
    return named


def _choice(spec: AdapterSpec, key: str, allowed: tuple[str, ...]) -> str:
    value = spec.option(key) or allowed[0]
    if value not in allowed:
        raise UsageError(
            f"{key}={value}: expected one of {', '.join(allowed)}.{nearest(value, allowed)}"
        )
    return value


def _triple(spec: AdapterSpec, key: str, default: float) -> np.ndarray:
    text = spec.option(key)
    if text is None:
        return np.full(3, default, np.float32)
    try:
        numbers = np.array([float(part) for part in text.split("/")], np.float32)
    except ValueError:
        numbers = np.zeros(0, np.float32)
    if numbers.shape not in ((1,), (3,)) or (key == "std" and not numbers.all()):
        raise UsageError(f"{key}={text}: expected a number, or three as 123.7/116.3/103.5")
    return np.broadcast_to(numbers, 3)
