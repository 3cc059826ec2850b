"""Files of exporters, read without being told how: made by the exporters themselves with random
weights where they are installed, and compared with their own inference."""

import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from box_store.boxes import Boxes
from box_store.errors import UsageError
from teacher_infer.adapters.class_names import COCO_80, COCO_91
from teacher_infer.adapters.loading import quiet, seeded
from teacher_infer.adapters.protocol import AdapterSpec, Misread
from teacher_infer.teachers.loaded import load_teacher, weights_files

pytest.importorskip("onnx")
from onnx import TensorProto


def spec(path: Path, floor: float = 0.3, **options: str) -> AdapterSpec:
    return AdapterSpec("onnx", str(path), score_floor=floor, top_k=300, threads=1, options=options)


def assert_same(ours: Boxes, boxes: Any, scores: Any, labels: Any, atol: float = 1e-2) -> None:
    """The same detections, whatever the order of equal scores: each has its like in the others."""
    assert len(ours) == len(scores) > 0
    mine = np.concatenate([ours.boxes_xyxy, ours.scores[:, None]], 1)
    theirs = np.concatenate([boxes, np.asarray(scores)[:, None]], 1)
    apart = np.abs(mine[:, None] - theirs[None])
    apart[..., 4] *= 10
    apart[ours.class_ids[:, None] != np.asarray(labels)[None]] = np.inf
    furthest = apart.max(axis=2)
    assert max(furthest.min(axis=0).max(), furthest.min(axis=1).max()) < atol


def exported(weights: Path, folder: Path, **arguments: Any) -> tuple[Path, Any]:
    """An Ultralytics export, and the library's model of it."""
    import ultralytics

    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copy = folder / weights.name
        shutil.copyfile(weights, copy)
        kind = ultralytics.RTDETR if "rtdetr" in weights.name else ultralytics.YOLO
        settings: dict[str, Any] = {"imgsz": 96, "simplify": False, "verbose": False}
        path = Path(kind(str(copy)).export(format="onnx", **(settings | arguments)))
    return path, kind


@pytest.mark.slow
@pytest.mark.parametrize("nms", [False, True])
def test_yolo_of_ultralytics(
    yolo_weights: Path, images: list[np.ndarray], tmp_path: Path, nms: bool
) -> None:
    path, kind = exported(yolo_weights, tmp_path, nms=nms, conf=0.25)
    teacher = load_teacher(spec(path))
    assert teacher.runtime["nms"] == ("none" if nms else "0.7")
    with quiet():
        model = kind(str(path), task="detect")
        assert teacher.class_names == tuple(model.names[index] for index in range(80))
        for image in images:
            bgr = np.ascontiguousarray(image[..., ::-1])
            found = model.predict(bgr, conf=0.3, imgsz=96, max_det=300, verbose=False)[0].boxes
            theirs = (found.xyxy.numpy(), found.conf.numpy(), found.cls.numpy())
            assert_same(teacher.predict([image])[0], *theirs)


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("TEACH_DETR_LONG") != "1", reason="32 million parameters: TEACH_DETR_LONG=1"
)
def test_rtdetr_of_ultralytics(images: list[np.ndarray], tmp_path: Path) -> None:
    import ultralytics

    with quiet(), seeded():
        model: Any = ultralytics.RTDETR("rtdetr-l.yaml")
        for head in model.model.model[-1].dec_score_head:
            head.bias.data.normal_(-2, 1)
        model.save(str(tmp_path / "rtdetr.pt"))
    (tmp_path / "out").mkdir()
    path, kind = exported(tmp_path / "rtdetr.pt", tmp_path / "out")
    teacher = load_teacher(spec(path, 0.6))
    assert teacher.runtime["nms"] == "none"
    with quiet():
        model = kind(str(path))
        for image in images[:2]:
            bgr = np.ascontiguousarray(image[..., ::-1])
            found = model.predict(bgr, conf=0.6, imgsz=96, max_det=300, verbose=False)[0].boxes
            theirs = (found.xyxy.clamp(min=0).numpy(), found.conf.numpy(), found.cls.numpy())
            assert_same(teacher.predict([image])[0], *theirs)


@pytest.fixture(scope="module")
def hf_export(detr_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What transformers' own exporter leaves of a DETR: model.onnx, its data, config.json."""
    exporters = pytest.importorskip("transformers.exporters.exporter_onnx")
    from transformers import AutoModelForObjectDetection

    folder = tmp_path_factory.mktemp("hf")
    with quiet():
        model = AutoModelForObjectDetection.from_pretrained(detr_folder).eval()
        inputs = {"pixel_values": torch.rand(1, 3, 64, 96)}
        inputs["pixel_mask"] = torch.ones(1, 64, 96, dtype=torch.int64)
        made = exporters.OnnxExporter().export(model, inputs, config=exporters.OnnxConfig())
        made.save_pretrained(str(folder))
    return folder / "model.onnx"


@pytest.mark.slow
def test_detr_of_transformers(
    hf_export: Path, detr_folder: Path, images: list[np.ndarray], tmp_path: Path
) -> None:
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    names = {path.name for path in weights_files(spec(hf_export))}
    assert {"model.onnx", "config.json"} <= names
    teacher = load_teacher(spec(hf_export, 0.1))
    assert teacher.class_names == ("N/A", "person", "car", "kite")
    size = {"height": 64, "width": 96}
    with quiet(), torch.inference_mode():
        # Pillow's own pixels are what both begin with; torchvision's differ by a grey level
        processor: Any = AutoImageProcessor.from_pretrained(detr_folder, backend="pil")
        model = AutoModelForObjectDetection.from_pretrained(detr_folder).eval()
        for image in images:
            inputs = processor(images=image, return_tensors="pt", size=size, do_pad=False)
            found = processor.post_process_object_detection(
                model(**inputs), threshold=0.1, target_sizes=[image.shape[:2]]
            )[0]
            ours = teacher.predict([image])[0]
            boxes = found["boxes"].numpy().clip(0)
            boxes = np.minimum(boxes, [ours.width, ours.height, ours.width, ours.height])
            assert_same(ours, boxes, found["scores"].numpy(), found["labels"].numpy())


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("TEACH_DETR_LONG") != "1", reason="20 CPU seconds each: TEACH_DETR_LONG=1"
)
@pytest.mark.parametrize("preset", ["rf-detr-micro", "d-fine-n"])
def test_queries_with_sigmoids_of_transformers(
    preset: str, images: list[np.ndarray], tmp_path: Path
) -> None:
    """RF-DETR and D-FINE, of random weights and three classes."""
    exporters = pytest.importorskip("transformers.exporters.exporter_onnx")
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    from student_train.bench.students import random_student
    from student_train.export.transformers_folder import export_folder
    from student_train.presets import load_preset

    config = load_preset(preset)
    model = replace(config.model, n_classes=3, n_queries=20, top_k=20)
    seen = replace(config.augment, eval_square=96, squares=())
    export_folder(random_student(replace(config, model=model, augment=seen)), tmp_path / "hf")
    with quiet(), warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        theirs: Any = AutoModelForObjectDetection.from_pretrained(tmp_path / "hf").eval()
        inputs = {"pixel_values": torch.rand(1, 3, 96, 96)}
        made = exporters.OnnxExporter().export(theirs, inputs, config=exporters.OnnxConfig())
        made.save_pretrained(str(tmp_path / "onnx"))
        for name in ("config.json", "preprocessor_config.json"):
            shutil.copyfile(tmp_path / "hf" / name, tmp_path / "onnx" / name)
        processor: Any = AutoImageProcessor.from_pretrained(tmp_path / "hf", backend="pil")
        teacher = load_teacher(spec(tmp_path / "onnx" / "model.onnx", 0.0))
        assert teacher.class_names[:3] == ("class 1", "class 2", "class 3")
        for image in images:
            found = theirs(**processor(images=image, return_tensors="pt", do_pad=False))
            (best,) = processor.post_process_object_detection(
                found, threshold=0.0, target_sizes=[image.shape[:2]]
            )
            ours = teacher.predict([image])[0]
            # they give as many as there are queries, here every class of every query counts
            floor = float(best["scores"].min()) - 1e-6
            ours = ours.take(ours.scores >= floor)
            frame = [ours.width, ours.height, ours.width, ours.height]
            boxes = np.minimum(best["boxes"].numpy().clip(0), frame)
            assert_same(ours, boxes, best["scores"].numpy(), best["labels"].numpy())


Make = Callable[..., Path]


IMAGE = np.full((48, 64, 3), 100, np.uint8)
PIXELS = (TensorProto.FLOAT, [1, 3, 32, 32])


def test_the_official_scripts_of_rtdetr_and_d_fine(constants: Make) -> None:
    """labels, boxes, scores of images and orig_target_sizes: boxes in pixels of the image."""
    path = constants(
        {"images": PIXELS, "orig_target_sizes": (TensorProto.INT64, [1, 2])},
        labels=np.array([[0, 79]]),
        boxes=np.array([[[4, 4, 20, 20], [30, 10, 60, 40]]], np.float32),
        scores=np.array([[0.9, 0.6]], np.float32),
    )
    boxes = load_teacher(spec(path)).predict([IMAGE])[0]
    assert boxes.boxes_xyxy.tolist() == [[4, 4, 20, 20], [30, 10, 60, 40]]
    assert load_teacher(spec(path)).class_names == COCO_80


def rfdetr(constants: Make, n_classes: int) -> Path:
    """dets [B, Q, 4] (centre, size, fractions) and labels [B, Q, classes + 1] (logits)."""
    logits = np.full((1, 3, n_classes), -9, np.float32)
    logits[0, 0, 1], logits[0, 1, 2], logits[0, 2, n_classes - 1] = 2, 1, -2
    return constants(
        {"input": PIXELS},
        dets=np.array([[[0.5, 0.5, 0.5, 0.5], [0.25, 0.25, 0.5, 0.5], [0.5] * 4]], np.float32),
        labels=logits,
    )


def test_rfdetr_numbers_cocos_classes_by_their_ids(constants: Make) -> None:
    boxes = load_teacher(spec(rfdetr(constants, 91))).predict([IMAGE])[0]
    assert boxes.boxes_xyxy.tolist() == [[16, 12, 48, 36], [0, 0, 32, 24]]
    assert [COCO_91[index] for index in boxes.class_ids] == ["person", "bicycle"]
    assert boxes.scores == pytest.approx(1 / (1 + np.exp([-2.0, -1.0])))


def test_rfdetr_of_ones_own_classes_needs_their_names(constants: Make, tmp_path: Path) -> None:
    path = rfdetr(constants, 4)
    with pytest.raises(Misread, match="the model has 4 classes, but there are 80 class names"):
        load_teacher(spec(path)).predict([IMAGE])
    (tmp_path / "names.txt").write_text("cat\ndog\ncow\n")
    teacher = load_teacher(spec(path, classes=str(tmp_path / "names.txt")))
    assert teacher.class_names == ("cat", "dog", "cow", "background")
    assert teacher.predict([IMAGE])[0].class_ids.tolist() == [1, 2]


def test_tensorflows_detection_api_counts_from_1_and_takes_bytes(constants: Make) -> None:
    path = constants(
        {"input_tensor": (TensorProto.UINT8, [1, 32, 32, 3])},
        detection_boxes=np.array([[[0.25, 0.5, 0.75, 1.0], [0, 0, 0.5, 0.25]]], np.float32),
        detection_classes=np.array([[1, 90]], np.float32),
        detection_scores=np.array([[0.9, 0.6]], np.float32),
        num_detections=np.array([2], np.float32),
    )
    teacher = load_teacher(spec(path))
    boxes = teacher.predict([IMAGE])[0]
    assert boxes.boxes_xyxy.tolist() == [[32, 12, 64, 36], [0, 0, 16, 24]]
    assert [teacher.class_names[one] for one in boxes.class_ids] == ["person", "toothbrush"]


def test_a_file_that_tells_nothing_names_its_outputs(constants: Make) -> None:
    path = constants({"x": PIXELS}, first=np.zeros((1, 5, 85), np.float32))
    with pytest.raises(UsageError, match=r"outputs first \[1, 5, 85\].*expected format=yolox"):
        load_teacher(spec(path))
    with pytest.raises(UsageError, match=r"no export of rfdetr: its outputs are first"):
        load_teacher(spec(path, format="rfdetr"))
    with pytest.raises(UsageError, match=r"resize= describes files of format=boxes"):
        load_teacher(spec(path, format="yolox", resize="letterbox"))


def test_logits_of_transformers_without_their_config_are_no_guess(constants: Make) -> None:
    path = constants(
        {"pixel_values": PIXELS},
        logits=np.zeros((1, 2, 3), np.float32),
        pred_boxes=np.zeros((1, 2, 4), np.float32),
    )
    with pytest.raises(UsageError, match="doesn't say how to read it"):
        load_teacher(spec(path))
    (path.parent / "config.json").write_text('{"model_type": "rt_detr", "id2label": {"0": "a"}}')
    with pytest.raises(Misread, match="the model has 3 classes, but there are 1 class names"):
        load_teacher(spec(path)).predict([IMAGE])
    assert [one.name for one in weights_files(spec(path))] == ["m.onnx", "config.json"]
