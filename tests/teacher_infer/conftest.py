"""A tiny COCO folder, and a detector that is an ONNX file of nine nodes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from teacher_infer.bench.inputs import write_tiny_detector

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}, {"id": 7, "name": "kite"}]
SIZE = (64, 48)

MakeFolder = Callable[..., Path]


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """make_folder(n_images=8, split="train", first_id=1) -> a folder in COCO's layout."""

    def make(
        n_images: int = 8, split: str = "train", first_id: int = 1, name: str = "coco"
    ) -> Path:
        data = tmp_path / name
        (data / split).mkdir(parents=True)
        (data / "annotations").mkdir(exist_ok=True)
        images = []
        for image_id in range(first_id, first_id + n_images):
            file_name = f"{image_id:06d}.jpg"
            # the fake detector's scores follow the brightness
            pixels = np.full((SIZE[1], SIZE[0], 3), (37 * image_id) % 256, np.uint8)
            Image.fromarray(pixels).save(data / split / file_name)
            images.append(
                {"id": image_id, "file_name": file_name, "width": SIZE[0], "height": SIZE[1]}
            )
        box = {"id": 1, "image_id": first_id, "category_id": 1, "bbox": [4, 4, 8, 8]}
        annotations = [box] if images else []
        document = {"images": images, "annotations": annotations, "categories": CATEGORIES}
        (data / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
        return data

    return make


@pytest.fixture
def edit_annotations() -> Callable[[Path, str, Callable[[dict], None]], None]:
    """edit(data, split, change): let `change` alter a folder's annotation document."""

    def edit(data: Path, split: str, change: Callable[[dict], None]) -> None:
        path = data / "annotations" / f"instances_{split}.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")

    return edit


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX detector (format=boxes, 32 px input): two boxes an image, of `person` and `unicorn`.

    The person's score is the mean brightness of the image; the unicorn's is 0.75. Its class names
    (person, unicorn, car) lie beside it in classes.txt.
    """
    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("detector")
    write_tiny_detector(folder, ("person", "unicorn", "car"))
    return folder / "detector.onnx"


@pytest.fixture
def teacher(detector: Path) -> str:
    """The detector as `--teacher` takes it, without a name: `tiny=` + teacher."""
    classes = detector.with_name("classes.txt")
    return f"onnx:{detector},format=boxes,classes={classes},licence=MIT"


@pytest.fixture
def external() -> Callable[..., None]:
    """external(path, score, location="") -> an ONNX detector of two boxes (format=boxes, input
    [1, 3, 48, 64]) whose scores lie in a file beside it: path.data, or where `location` claims."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    boxes = np.array([[[4, 4, 20, 20], [30, 10, 60, 40]]], np.float32)
    labels = np.array([[0, 1]], np.int64)

    def write(path: Path, score: float, location: str = "") -> None:
        """A model whose scores lie in a file beside it, as torch.onnx.export writes them."""
        weights = numpy_helper.from_array(np.full((1, 2000), score, np.float32), "w")
        cut = [
            numpy_helper.from_array(np.array([v]), n) for n, v in (("s", 0), ("e", 2), ("ax", 1))
        ]
        rest = [numpy_helper.from_array(boxes, "b"), numpy_helper.from_array(labels, "l")]
        nodes = [
            helper.make_node("Slice", ["w", "s", "e", "ax"], ["scores"]),
            helper.make_node("Identity", ["b"], ["boxes"]),
            helper.make_node("Identity", ["l"], ["labels"]),
        ]
        outputs = [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 2, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 2]),
            helper.make_tensor_value_info("labels", TensorProto.INT64, [1, 2]),
        ]
        inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 48, 64])]
        graph = helper.make_graph(nodes, "g", inputs, outputs, [weights, *cut, *rest])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        data = f"{path.name}.data"
        (path.parent / data).unlink(missing_ok=True)
        kept: dict[str, Any] = {"save_as_external_data": True, "size_threshold": 1000}
        onnx.save_model(model, str(path), location=data, **kept)
        if location:
            model = onnx.load(str(path), load_external_data=False)
            for entry in model.graph.initializer[0].external_data:
                if entry.key == "location":
                    entry.value = location
            path.write_bytes(model.SerializeToString())

    return write


@pytest.fixture
def constants(tmp_path: Path) -> Callable[..., Path]:
    """constants({input: (ONNX type, shape)}, output=values, ...) -> m.onnx, which answers so."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    def write(inputs: dict[str, tuple[int, list[Any]]], **outputs: np.ndarray) -> Path:
        nodes = [helper.make_node("Identity", [f"{key}_"], [key]) for key in outputs]
        infos = [
            helper.make_tensor_value_info(
                key, helper.np_dtype_to_tensor_dtype(value.dtype), list(value.shape)
            )
            for key, value in outputs.items()
        ]
        asked = [helper.make_tensor_value_info(key, *about) for key, about in inputs.items()]
        held = [numpy_helper.from_array(value, f"{key}_") for key, value in outputs.items()]
        graph = helper.make_graph(nodes, "g", asked, infos, held)
        path = tmp_path / "m.onnx"
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))
        return path

    return write
