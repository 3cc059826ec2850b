"""What the benchmark labels where no data set and no teacher are given."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from PIL import Image

from box_store.coco.categories80 import COCO_CATEGORIES
from teacher_infer.data.dataset import Dataset

# a real network, with random weights: what it finds does not matter here, what it costs does
SLOW_TEACHER = "ssdlite=torchvision:ssdlite320_mobilenet_v3_large,weights=random"


def draw_images(folder: Path, n_images: int, width: int, height: int) -> Path:
    """A folder in COCO's layout with the split `drawn`: smooth noise, as JPEG."""
    (folder / "drawn").mkdir(parents=True)
    (folder / "annotations").mkdir()
    draw = np.random.default_rng(0)
    images = []
    for image_id in range(1, n_images + 1):
        coarse = draw.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        name = f"{image_id:06d}.jpg"
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(folder / "drawn" / name, quality=90)
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
    document = {"images": images, "annotations": [], "categories": COCO_CATEGORIES.to_json()}
    (folder / "annotations" / "instances_drawn.json").write_text(json.dumps(document))
    return folder


def repeated(dataset: Dataset, n_images: int) -> Dataset:
    """A data set of `n_images` images, whose files are those of `dataset` over and over."""
    tasks = tuple(
        replace(task, image_id=number)
        for number, task in enumerate(islice(cycle(dataset.tasks), n_images), 1)
    )
    return replace(dataset, tasks=tasks, info=replace(dataset.info, n_images=n_images))


def write_tiny_detector(folder: Path, classes: Sequence[str] = ("person", "car")) -> str:
    """A detector of nine nodes as an ONNX file; returns it as `--teacher` takes it, without a name.

    It takes 32 x 32 pixels (format=boxes) and finds two boxes in every image: one of the first
    class, whose score is the image's brightness, and one of the second, of score 0.75. The file is
    detector.onnx, with classes.txt beside it. Needs the package onnx.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, values: list, dtype: type) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(values, dtype), name)

    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Reshape", ["mean", "b1"], ["bright"]),
        helper.make_node("Mul", ["bright", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "sure"], ["second"]),
        helper.make_node("Concat", ["bright", "second"], ["scores"], axis=1),
        helper.make_node("Reshape", ["nothing", "b11"], ["nothing3"]),
        helper.make_node("Add", ["nothing3", "corners"], ["boxes"]),
        helper.make_node("Cast", ["nothing"], ["nothing_int"], to=TensorProto.INT64),
        helper.make_node("Add", ["nothing_int", "classes"], ["labels"]),
    ]
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("image", floats, ["b", 3, 32, 32])],
        [
            helper.make_tensor_value_info("boxes", floats, ["b", 2, 4]),
            helper.make_tensor_value_info("scores", floats, ["b", 2]),
            helper.make_tensor_value_info("labels", TensorProto.INT64, ["b", 2]),
        ],
        [
            constant("b1", [-1, 1], np.int64),
            constant("b11", [-1, 1, 1], np.int64),
            constant("zero", [0.0], np.float32),
            constant("sure", [0.75], np.float32),
            constant("corners", [[[4, 4, 20, 20], [8, 8, 24, 30]]], np.float32),
            constant("classes", [[0, 1]], np.int64),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / "detector.onnx"))
    (folder / "classes.txt").write_text("\n".join(classes) + "\n")
    return f"onnx:{folder / 'detector.onnx'},format=boxes,classes={folder / 'classes.txt'}"
