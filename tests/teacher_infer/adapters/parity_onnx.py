"""ONNX models beside a bare onnxruntime loop, written after each exporter's own post-processing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from teacher_infer.adapters.protocol import AdapterSpec, Detections
from tests.teacher_infer.adapters.parity_case import Case, Pair


def onnx_pair(case: Case, folder: Path, request: Any) -> Pair:
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
