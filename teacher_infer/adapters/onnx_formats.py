"""What goes into and comes out of detectors that exist as plain ONNX files, one class a format.

Each knows its preprocessing (image -> input tensor) and its decoding (outputs -> boxes). The files
say neither; the facts are those of the projects that trained and exported the models.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from teacher_infer.adapters.protocol import AdapterError, Detections, Misread
from teacher_infer.adapters.resize import Placement, letterbox, stretch

Outputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Prepared:
    """An image as the model wants it: [3, H, W] (or [H, W, 3]) float32, and where it lies in it."""

    tensor: np.ndarray
    placement: Placement
    image_width: int
    image_height: int


class Format:
    """One family of exported detectors.

    `nms_iou` is the NMS that its candidates need by default, None for none. `n_classes` is how many
    class names there are.
    """

    nms_iou: float | None = 0.6
    # the input is pixels as they are, so a file that takes whole numbers can be given them
    takes_bytes = False
    # where the file says them: class names, and the size of an input that is left open (W, H)
    class_names: tuple[str, ...] | None = None
    image_size: tuple[int, int] | None = None

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes

    def complete(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Class names for every index that the file may give, where it has slots for no class."""
        return names

    def prepare(self, image: np.ndarray, width: int, height: int) -> Prepared:
        """Image (H x W x 3, uint8, RGB) -> input of `width` x `height` pixels."""
        raise TypeError(f"{type(self).__name__} has no preprocessing")

    def split(self, outputs: Outputs, n_images: int) -> list[Outputs]:
        """Outputs of a batch -> outputs of each image, without the batch dimension."""
        return [{name: value[i] for name, value in outputs.items()} for i in range(n_images)]

    def decode(self, outputs: Outputs, prepared: Prepared, floor: float) -> Detections:
        """One image's outputs -> detections; candidates below `floor` may be left out."""
        raise TypeError(f"{type(self).__name__} has no decoding")

    def candidates(
        self, boxes: np.ndarray, scores: np.ndarray, prepared: Prepared, floor: float
    ) -> Detections:
        """Every class of every cell from the floor on: boxes [N, 4] in the input, scores [N, C]."""
        if scores.shape[1] != self.n_classes:
            raise Misread(
                f"the model has {scores.shape[1]} classes, but there are {self.n_classes} class "
                "names: give the right list with classes=FILE"
            )
        # not `>=`: what is no number is for the caller to see
        rows, classes = np.nonzero(~(scores < floor))
        return Detections(prepared.placement.to_image(boxes[rows]), scores[rows, classes], classes)


class Yolox(Format):
    """YOLOX (Ge et al. 2021), exported without decoding, as the project's release files are.

    Letterbox, BGR on the 0..255 scale. Output [A, 5 + classes] over anchors of strides 8, 16, 32:
    centre offset and log size in strides, then sigmoids of objectness and classes.
    """

    strides = (8, 16, 32)
    takes_bytes = True

    def prepare(self, image: np.ndarray, width: int, height: int) -> Prepared:
        """As `Format.prepare`."""
        canvas, placement = letterbox(image, width, height)
        return prepared_input(_channels_first(canvas[..., ::-1]), placement, image)

    def decode(self, outputs: Outputs, prepared: Prepared, floor: float) -> Detections:
        """As `Format.decode`."""
        rows = _only(outputs, "yolox", n_dims=2)
        cells, strides = _grid(prepared.tensor.shape[1:], self.strides)
        if len(rows) != len(cells):
            raise AdapterError(
                f"format=yolox: expected {len(cells)} rows for an input of "
                f"{prepared.tensor.shape[2]}x{prepared.tensor.shape[1]}, got {len(rows)}"
            )
        centre = (rows[:, :2] + cells) * strides
        half = np.exp(rows[:, 2:4]) * strides / 2
        boxes = np.concatenate([centre - half, centre + half], axis=1)
        return self.candidates(boxes, rows[:, 4:5] * rows[:, 5:], prepared, floor)


class NanoDet(Format):
    """NanoDet (generalised focal loss heads): a class and a box output for each stride.

    BGR with ImageNet's mean and deviation. Class outputs [cells, classes] after the sigmoid; box
    outputs [cells, 4 * bins]: a distribution over the distance to each side, in strides. The
    strides follow from the numbers of cells.
    """

    mean_bgr = (103.53, 116.28, 123.675)
    std_bgr = (57.375, 57.12, 58.395)

    def prepare(self, image: np.ndarray, width: int, height: int) -> Prepared:
        """As `Format.prepare`."""
        canvas, placement = stretch(image, width, height)
        tensor = _channels_first(_standardised(canvas[..., ::-1], self.mean_bgr, self.std_bgr))
        return prepared_input(tensor, placement, image)

    def decode(self, outputs: Outputs, prepared: Prepared, floor: float) -> Detections:
        """As `Format.decode`."""
        height, width = prepared.tensor.shape[1:]
        by_cells: dict[int, list[np.ndarray]] = {}
        for output in outputs.values():
            by_cells.setdefault(len(output), []).append(output)
        boxes, scores = [], []
        for stride in (8, 16, 32, 64):
            cells, strides = _grid((height, width), (stride,))
            pair = by_cells.get(len(cells), [])
            if not pair:
                continue
            classes, distances = _classes_and_bins(pair)
            bins = distances.reshape(len(cells), 4, -1)
            sides = (_softmax(bins) @ np.arange(bins.shape[2], dtype=np.float32)) * strides
            centre = (cells + 0.5) * strides
            boxes.append(np.concatenate([centre - sides[:, :2], centre + sides[:, 2:]], axis=1))
            scores.append(classes)
        if not boxes:
            raise AdapterError(
                f"format=nanodet: expected outputs over the cells of strides 8, 16, 32 of "
                f"{width}x{height}, got {sorted(by_cells)} cells"
            )
        return self.candidates(np.concatenate(boxes), np.concatenate(scores), prepared, floor)


class CenterNet(Format):
    """CenterNet that ends in its own top detections: rows x1, y1, x2, y2, score, class.

    RGB on the 0..255 scale, both sides stretched; boxes in pixels of the input.
    """

    takes_bytes = True

    def prepare(self, image: np.ndarray, width: int, height: int) -> Prepared:
        """As `Format.prepare`."""
        canvas, placement = stretch(image, width, height)
        return prepared_input(_channels_first(canvas), placement, image)

    def decode(self, outputs: Outputs, prepared: Prepared, floor: float) -> Detections:
        """As `Format.decode`."""
        named = [value for name, value in outputs.items() if name.endswith("detections")]
        rows = named[0] if named else _only(outputs, "centernet", n_dims=2)
        if rows.ndim != 2 or rows.shape[1] != 6:
            raise AdapterError(
                f"format=centernet: expected rows of 6 numbers, got {list(rows.shape)}"
            )
        return Detections(prepared.placement.to_image(rows[:, :4]), rows[:, 4], rows[:, 5])


class FastestDet(Format):
    """FastestDet: one grid, channels objectness, 4 for the box, then the classes.

    BGR on the 0..1 scale, stretched. Centre offset by tanh in cells, size by sigmoid in images,
    score = objectness ** 0.6 * best class ** 0.4.
    """

    nms_iou = 0.45

    def prepare(self, image: np.ndarray, width: int, height: int) -> Prepared:
        """As `Format.prepare`."""
        canvas, placement = stretch(image, width, height)
        tensor = _channels_first(canvas[..., ::-1]) / np.float32(255)
        return prepared_input(tensor, placement, image)

    def decode(self, outputs: Outputs, prepared: Prepared, floor: float) -> Detections:
        """As `Format.decode`."""
        grid = _only(outputs, "fastestdet", n_dims=3)
        rows, columns = grid.shape[1:]
        height, width = prepared.tensor.shape[1:]
        cells = grid.reshape(len(grid), -1).T  # [rows * columns, 5 + classes]
        x = np.tile(np.arange(columns), rows)
        y = np.repeat(np.arange(rows), columns)
        centre_x = (np.tanh(cells[:, 1]) + x) / columns * width
        centre_y = (np.tanh(cells[:, 2]) + y) / rows * height
        half_x = _sigmoid(cells[:, 3]) * width / 2
        half_y = _sigmoid(cells[:, 4]) * height / 2
        boxes = np.stack(
            [centre_x - half_x, centre_y - half_y, centre_x + half_x, centre_y + half_y], axis=1
        )
        # a class below the best shares its box with it, so only the best is a detection
        best = cells[:, 5:].argmax(axis=1)
        scores = np.clip(cells[:, 0], 0, 1) ** 0.6 * np.clip(cells[:, 5:].max(axis=1), 0, 1) ** 0.4
        return Detections(prepared.placement.to_image(boxes), scores, best)


def _classes_and_bins(pair: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    # class scores come after a sigmoid; logits of the distributions go below zero
    if len(pair) != 2:
        raise AdapterError(
            f"format=nanodet: expected a class and a box output per stride, got {len(pair)}"
        )
    first, second = pair
    return (first, second) if first.min(initial=0) >= 0 > second.min(initial=0) else (second, first)


def _grid(size: tuple[int, ...], strides: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Cell indices (x, y) [A, 2] and stride [A, 1] of all levels over an input (height, width)."""
    cells, of_cell = [], []
    for stride in strides:
        rows, columns = -(-size[0] // stride), -(-size[1] // stride)
        y, x = np.mgrid[:rows, :columns]
        cells.append(np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32))
        of_cell.append(np.full((rows * columns, 1), stride, np.float32))
    return np.concatenate(cells), np.concatenate(of_cell)


def _only(outputs: Outputs, name: str, n_dims: int) -> np.ndarray:
    if len(outputs) == 1:
        (value,) = outputs.values()
        if value.ndim == n_dims:
            return value
    shapes = {key: list(value.shape) for key, value in outputs.items()}
    raise AdapterError(
        f"format={name}: expected one output of {n_dims} dimensions, got {shapes} (without batch)"
    )


def prepared_input(tensor: np.ndarray, placement: Placement, image: np.ndarray) -> Prepared:
    """The record of an image as [3, H, W] float32 and where it lies in it."""
    return Prepared(
        np.ascontiguousarray(tensor, np.float32), placement, image.shape[1], image.shape[0]
    )


def _channels_first(image: np.ndarray) -> np.ndarray:
    return image.transpose(2, 0, 1).astype(np.float32)


def _standardised(image: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    return (image.astype(np.float32) - np.array(mean, np.float32)) / np.array(std, np.float32)


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))
