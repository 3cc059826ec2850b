"""`format=boxes`: ONNX detectors whose outputs are finished boxes, scores and labels.

That is how torchvision, mmdeploy, the RT-DETR family and everybody with an NMS in the graph export.
Outputs are recognised by name, type and rank: boxes [B, N, 4] (or [B, N, 5] with the score in the
last column), scores [B, N], labels [B, N], and the number of rows that count, [B, 1]; the batch
dimension may be missing where the model takes one image. Models that take the original sizes as a
second input (`orig_target_sizes`) return boxes in pixels of the image.
"""

from dataclasses import dataclass

import numpy as np

from box_store.boxes import to_xyxy
from box_store.errors import UsageError, nearest
from teacher_infer.adapters.onnx_formats import Format, Outputs, Prepared, prepared_input
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec, Detections
from teacher_infer.adapters.resize import centred, letterbox, smooth, stretch

PLACES = {"stretch": stretch, "smooth": smooth, "letterbox": letterbox, "centred": centred}
LAYOUTS = ("xyxy", "yxyx", "xywh", "cxcywh")
FRAMES = ("input", "unit")

_BOXES, _SCORES, _LABELS = ("box", "dets"), ("score", "conf", "prob"), ("label", "class", "cls")
_COUNTS = ("num", "count")
# boxes that end within so few pixels of the corner are meant as fractions
_TINY_PX = 1.5
_SHAPES = (
    "boxes [B, N, 4], scores [B, N] and labels [B, N] (or dets [B, N, 5] with scores in the last "
    "column, and labels), and at most the number of rows that count [B, 1]"
)


@dataclass(frozen=True)
class Style:
    """What a file with finished boxes doesn't say of itself.

    place: how an image is brought to the size of the input. mean, std: subtracted and divided by,
    for each channel in the order of the input. layout: what the four numbers of a box are. frame:
    pixels of the input, or fractions of it. first_label: the label of the first class name.
    """

    place: str = "stretch"
    bgr: bool = False
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (255.0,)
    layout: str = "xyxy"
    frame: str = "input"
    first_label: int = 0

    @property
    def takes_bytes(self) -> bool:
        """Whether the input is the pixels as they are, 0..255."""
        return not any(self.mean) and set(self.std) == {1.0}

    @classmethod
    def of(cls, spec: AdapterSpec, takes_bytes: bool) -> "Style":
        """What the spec's options say; takes_bytes: the file's input is of whole numbers.

        Raises:
            UsageError: an option that can't be meant, or not of such a file.
        """
        style = cls(
            place=_choice(spec, "resize", tuple(PLACES)),
            bgr=_choice(spec, "colour", ("rgb", "bgr")) == "bgr",
            mean=_triple(spec, "mean", 0.0),
            std=_triple(spec, "std", 1.0 if takes_bytes else 255.0),
            layout=_choice(spec, "layout", LAYOUTS),
            frame=_choice(spec, "frame", FRAMES),
            first_label=int(_choice(spec, "first_label", ("0", "1"))),
        )
        if takes_bytes and not style.takes_bytes:
            raise UsageError(
                f"{spec.model} takes whole numbers (uint8), which pixels are from 0 to 255: mean="
                f"{_said(style.mean)},std={_said(style.std)} would leave next to nothing of them. "
                "Leave mean and std out"
            )
        return style


class FinishedBoxes(Format):
    """The generic format; a `Style` describes the model."""

    nms_iou = None

    def __init__(self, n_classes: int, style: Style) -> None:
        super().__init__(n_classes)
        self.takes_bytes = style.takes_bytes
        self._style = style
        self._mean, self._std = (np.array(one, np.float32) for one in (style.mean, style.std))
        # set where the model is told the original sizes, and so has scaled its boxes itself
        self.boxes_in_image = False

    def prepare(self, image: np.ndarray, width: int, height: int) -> Prepared:
        """As `Format.prepare`."""
        canvas, placement = PLACES[self._style.place](image, width, height)
        pixels = canvas[..., ::-1] if self._style.bgr else canvas
        tensor = (pixels.astype(np.float32) - self._mean) / self._std
        return prepared_input(tensor.transpose(2, 0, 1), placement, image)

    def split(self, outputs: Outputs, n_images: int) -> list[Outputs]:
        """As `Format.split`; outputs of a single image may come without batch dimension."""
        found = roles(outputs)
        if found["boxes"].ndim == 2:
            if n_images != 1:
                raise AdapterError("format=boxes: the boxes of several images came as one list")
            found = {role: value[None] for role, value in found.items()}
        if len(found["boxes"]) != n_images:
            raise AdapterError(
                f"format=boxes: {len(found['boxes'])} lists of boxes came for {n_images} images "
                f"({described(outputs)})"
            )
        return super().split(found, n_images)

    def decode(self, outputs: Outputs, prepared: Prepared, floor: float) -> Detections:
        """As `Format.decode`."""
        n_rows = len(outputs["boxes"])
        n = int(outputs["count"].reshape(-1)[0]) if "count" in outputs else n_rows
        if not 0 <= n <= n_rows:
            raise AdapterError(f"the model says that {n} of its {n_rows} rows of boxes count")
        boxes = outputs["boxes"][:n].astype(np.float32)
        scores = (outputs["scores"][:n] if "scores" in outputs else boxes[:, 4]).astype(np.float32)
        labels = outputs["labels"][:n]
        if (labels != np.floor(labels)).any():
            raise AdapterError(
                f"labels should be whole numbers, got {labels.dtype} as {labels.reshape(-1)[:3]}"
            )
        # rows that only fill the list up to its fixed length
        real = ~((labels < 0) & (scores <= 0))
        boxes = corners(boxes[real, :4], self._style.layout)
        scores, labels = scores[real], labels[real].astype(np.int64)
        self._check(boxes[scores >= floor], prepared)
        height, width = prepared.tensor.shape[1:]
        if self._style.frame == "unit":
            boxes = boxes * np.array([width, height, width, height], np.float32)
        if not self.boxes_in_image:
            boxes = prepared.placement.to_image(boxes)
        return Detections(boxes, scores, labels - self._style.first_label)

    def _check(self, boxes: np.ndarray, prepared: Prepared) -> None:
        """Refuse boxes that are not what the style says, where that can be seen."""
        boxes = boxes[np.isfinite(boxes).all(axis=1)]
        if not len(boxes):
            return
        is_unit = self._style.frame == "unit"
        one_px = 0.01 if is_unit else 1.0
        turned = (boxes[:, 2:] < boxes[:, :2] - one_px).any(axis=1)
        if turned.any():
            raise AdapterError(
                f"a box comes as {boxes[turned][0].round(3).tolist()}, which is no x1, y1, x2, y2: "
                f"say what the numbers are with layout={'|'.join(LAYOUTS)}"
            )
        sides = prepared.tensor.shape[1:]
        if self.boxes_in_image:
            sides = (prepared.image_height, prepared.image_width)
        furthest = float(boxes.max())
        if not is_unit and furthest <= _TINY_PX and min(sides) > 4 * _TINY_PX:
            raise AdapterError(
                f"all boxes end within {furthest:.3g} pixels of the corner: these look like "
                "fractions of the image; say frame=unit"
            )
        if is_unit and float(np.median(boxes[:, 2:])) > 2:
            raise AdapterError(
                f"boxes reach to {furthest:.4g}, where frame=unit expects 0 to 1: leave frame out"
            )


def roles(outputs: Outputs) -> Outputs:
    """Outputs under the names boxes, scores, labels and count, by name, type and rank.

    Raises:
        AdapterError: they are not there; names those that are.
    """
    rest = {name: _squeezed(value) for name, value in outputs.items()}
    found: Outputs = {}
    lists = [
        (name, value)
        for name, value in rest.items()
        if value.dtype.kind == "f" and value.ndim in (2, 3) and value.shape[-1] in (4, 5)
    ]
    # the list of several images before the one of one; then the one that says that it is boxes
    lists.sort(key=lambda item: (-item[1].ndim, not _called(item[0], _BOXES)))
    if lists:
        name, boxes = lists[0]
        found["boxes"] = boxes
        del rest[name]
        rows = boxes.shape[:-1]
        flat = {name: value for name, value in rest.items() if value.shape == rows}
        numbers = {name: value for name, value in rest.items() if value.dtype.kind in "iuf"}
        _assign(found, "labels", flat, _LABELS, "iu")
        _assign(found, "scores", flat, _SCORES, "f")
        counts = {
            name: value
            for name, value in numbers.items()
            if value.size == (rows[0] if len(rows) == 2 else 1) and _called(name, _COUNTS)
        }
        if counts:
            found["count"] = next(iter(counts.values())).reshape(-1)
    joined = "boxes" in found and found["boxes"].shape[-1] == 5
    if "boxes" not in found or "labels" not in found or not (joined or "scores" in found):
        raise AdapterError(
            f"format=boxes: expected outputs {_SHAPES}; the file has {described(outputs)}. "
            "Export it with an NMS or the post-processing in the graph, or name another format="
        )
    if joined:
        found.pop("scores", None)
    return found


def described(outputs: Outputs) -> str:
    """Outputs for messages: `boxes float32 [1, 100, 4], ...`."""
    return ", ".join(f"{name} {value.dtype} {list(value.shape)}" for name, value in outputs.items())


def _assign(found: Outputs, role: str, flat: Outputs, names: tuple[str, ...], kinds: str) -> None:
    """The output of that role: the first that is called so, else the first of that type."""
    called = [value for name, value in flat.items() if _called(name, names)]
    typed = [
        value
        for name, value in flat.items()
        if value.dtype.kind in kinds and not _called(name, (*_SCORES, *_LABELS, *_COUNTS))
    ]
    for value in (*called, *typed):
        if not any(value is taken for taken in found.values()):
            found[role] = value
            return


def _called(name: str, parts: tuple[str, ...]) -> bool:
    lower = name.lower()
    if parts is not _COUNTS and lower.startswith(_COUNTS):
        return False
    return any(part in lower for part in parts)


def _squeezed(value: np.ndarray) -> np.ndarray:
    """[B, N, 1] -> [B, N]: a column of its own."""
    return value[..., 0] if value.ndim == 3 and value.shape[-1] == 1 else value


def corners(boxes: np.ndarray, layout: str) -> np.ndarray:
    """Boxes [N, 4] of any layout -> x1, y1, x2, y2."""
    if layout == "yxyx":
        return boxes[:, [1, 0, 3, 2]]
    if layout == "xywh":
        return to_xyxy(boxes)
    if layout == "cxcywh":
        half = boxes[:, 2:] / 2
        return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
    return boxes


def _choice(spec: AdapterSpec, key: str, allowed: tuple[str, ...]) -> str:
    value = spec.option(key) or allowed[0]
    if value not in allowed:
        raise UsageError(
            f"{key}={value}: expected one of {', '.join(allowed)}.{nearest(value, allowed)}"
        )
    return value


def _triple(spec: AdapterSpec, key: str, default: float) -> tuple[float, ...]:
    text = spec.option(key)
    if text is None:
        return (default,)
    try:
        numbers = tuple(float(part) for part in text.split("/"))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3) or (key == "std" and not all(numbers)):
        raise UsageError(f"{key}={text}: expected a number, or three as 123.7/116.3/103.5")
    return numbers


def _said(numbers: tuple[float, ...]) -> str:
    return "/".join(f"{number:g}" for number in numbers)
