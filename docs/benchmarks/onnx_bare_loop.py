"""A YOLOX teacher beside the loop that one would write by hand: onnxruntime, OpenCV, NumPy.

    python docs/benchmarks/onnx_bare_loop.py yolox_nano.onnx FOLDER [--rounds 5] [--out FILE]

Both read the JPEG files, scale, run the model and decode its boxes, with class-wise suppression, on
one thread. CPU milliseconds an image, in turns; prints the ratio round by round.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from box_store.boxes import Boxes
from student_train.runs.provenance import source_revision, versions
from teacher_infer.adapters import resize
from teacher_infer.data.images import ImageTask, load_image
from teacher_infer.teachers.loaded import load_teacher
from teacher_infer.teachers.parsing import parse_teacher

SIDE = 416
SCORE, IOU = 0.05, 0.65


class BareLoop:
    """As YOLOX's own demo for ONNX does it."""

    def __init__(self, model: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model, options)
        self.input = self.session.get_inputs()[0].name
        cells = [(SIDE // s, s) for s in (8, 16, 32)]
        self.grid = np.concatenate([np.argwhere(np.ones((n, n)))[:, ::-1] for n, _ in cells])
        self.stride = np.concatenate([np.full((n * n, 1), s) for n, s in cells])

    def boxes(self, path: Path) -> int:
        """How many boxes it finds."""
        image = cv2.imread(str(path))
        height, width = image.shape[:2]
        scale = min(SIDE / width, SIDE / height)
        small = cv2.resize(image, (int(width * scale), int(height * scale)))
        canvas = np.full((SIDE, SIDE, 3), 114, np.uint8)
        canvas[: small.shape[0], : small.shape[1]] = small
        pixels = np.ascontiguousarray(canvas.transpose(2, 0, 1), np.float32)[None]
        output = self.session.run(None, {self.input: pixels})[0][0]
        centres = (output[:, :2] + self.grid) * self.stride / scale
        sizes = np.exp(output[:, 2:4]) * self.stride / scale
        scores = output[:, 4:5] * output[:, 5:]
        rows, classes = np.nonzero(scores > SCORE)
        corner = centres[rows] - sizes[rows] / 2
        xywh = np.concatenate([corner, sizes[rows]], axis=1)
        return len(cv2.dnn.NMSBoxesBatched(xywh, scores[rows, classes], classes, SCORE, IOU))


def main() -> None:
    """Print both sides and their ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    paths = sorted(options.folder.rglob("*.jpg"))[:64]
    tasks = []
    for at, path in enumerate(paths):
        height, width = cv2.imread(str(path)).shape[:2]
        tasks.append(ImageTask(at, path.name, width, height, str(path.parent)))
    text = f"yolox=onnx:{options.model},format=yolox,score_floor={SCORE},nms_iou={IOU}"
    teacher = load_teacher(parse_teacher(text).adapter_spec("cpu", 1))
    bare = BareLoop(options.model)

    def ours() -> list[Boxes]:
        return [boxes for task in tasks for boxes in teacher.predict([load_image(task)])]

    def in_numpy() -> list[Boxes]:
        fast = resize._opencv
        resize._opencv = lambda: None
        try:
            return ours()
        finally:
            resize._opencv = fast

    sides = {
        "bare loop": lambda: [bare.boxes(path) for path in paths],
        "teacher": ours,
        "teacher, numpy's resize": in_numpy,
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.rounds + 1):
        for name, run in sides.items():
            start = time.process_time()
            run()
            times[name].append((time.process_time() - start) / len(paths) * 1e3)
    same = all(
        np.array_equal(a.boxes_xyxy, b.boxes_xyxy) and np.array_equal(a.scores, b.scores)
        for a, b in zip(ours(), in_numpy(), strict=True)
    )
    base = times["bare loop"][1:]
    rows = []
    for name, spent in times.items():
        ratios = [a / b for a, b in zip(spent[1:], base, strict=True)]
        middle = statistics.median(spent[1:])
        print(f"{name:24} {middle:6.2f} CPU ms an image, {statistics.median(ratios):.2f} of bare")
        rows.append({"side": name, "cpu_ms": middle, "ratio": statistics.median(ratios)})
    print("boxes with either resize are", "identical" if same else "DIFFERENT")
    if options.out:
        found = {"rows": rows, "identical": same, "versions": versions()}
        options.out.write_text(json.dumps(found | {"source": source_revision()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
