"""Small models of every framework, built here with random weights, and images to run them on."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from box_store.boxes import Boxes
from teacher_infer.adapters.protocol import AdapterSpec

Pictures = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def pictures() -> Pictures:
    """uint8 RGB images: two of one size, odd sizes, a single pixel, and grey turned RGB."""
    random = np.random.default_rng(7)

    def scene(height: int, width: int) -> np.ndarray:
        # blobs rather than noise: features that survive scaling
        coarse = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        rows = np.arange(height) * 5 // height
        columns = np.arange(width) * 6 // width
        return coarse[rows][:, columns]

    grey = scene(50, 70)[..., :1]
    return {
        "first": scene(48, 64),
        "second": scene(48, 64),
        "odd": scene(37, 101),
        "pixel": scene(1, 1),
        "grey": np.repeat(grey, 3, axis=2),
    }


@pytest.fixture(scope="session")
def most_overlap() -> Callable[[Boxes], float]:
    """most_overlap(boxes) -> the largest IoU of two boxes of one class."""
    from torchvision.ops import box_iou

    def measure(boxes: Boxes) -> float:
        corners = torch.from_numpy(boxes.boxes_xyxy)
        overlaps = box_iou(corners, corners).fill_diagonal_(0)
        return float(overlaps[torch.from_numpy(boxes.class_ids[:, None] == boxes.class_ids)].max())

    return measure


@pytest.fixture(scope="session")
def images(pictures: Pictures, request: pytest.FixtureRequest) -> list[np.ndarray]:
    """Two drawn pictures and, where there are photos, one upright and one across."""
    try:
        shared: Path = request.getfixturevalue("shared")
    except pytest.skip.Exception:
        return [pictures["first"], pictures["odd"]]
    chosen: dict[bool, np.ndarray] = {}
    for path in sorted((shared / "data" / "coco-mini" / "val2017").glob("*.jpg")):
        with Image.open(path) as file:
            chosen.setdefault(file.height > file.width, np.array(file.convert("RGB")))
    return [pictures["first"], pictures["odd"], *chosen.values()]


@pytest.fixture(scope="session")
def boxes_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """boxes_model(batch="n", ...) -> an ONNX detector whose boxes follow the image it is shown.

    Input [batch, 3, 32, 32] (RGB, 0..1); three boxes an image in pixels of the input. The first one
    ends at column 32 * mean of red; the scores are mean of red, mean of green, and 0.5.
    """
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    def build(
        batch: int | str = "n",
        size: Sequence[int | str] = (32, 32),
        tells_size: bool = False,
        joined: bool = False,
    ) -> Path:
        def constant(name: str, values: Any, dtype: Any = np.float32) -> Any:
            return numpy_helper.from_array(np.array(values, dtype), name)

        def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> Any:
            return helper.make_node(kind, inputs, [output], **attributes)

        nodes = [
            node("ReduceMean", ["images"], "means", axes=[2, 3], keepdims=0),
            node("Gather", ["means", "red"], "r", axis=1),
            node("Gather", ["means", "green"], "g", axis=1),
            node("Mul", ["r", "zero"], "none"),
            node("Add", ["none", "half"], "h"),
            node("Concat", ["r", "g", "h"], "scores", axis=1),
            node("Mul", ["r", "side"], "right"),
            # an epsilon keeps the first box alive on a black image
            node("Add", ["right", "one"], "right1"),
            node("Unsqueeze", ["right1", "axis1"], "right2"),
            node("Mul", ["right2", "only_right"], "moved"),
            node("Add", ["moved", "corners"], "boxes"),
            node("Cast", ["none"], "none_int", to=TensorProto.INT64),
            node("Add", ["none_int", "classes"], "labels"),
        ]
        outputs = [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [batch, 3, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 3]),
            helper.make_tensor_value_info("labels", TensorProto.INT64, [batch, 3]),
        ]
        if joined:
            nodes += [
                node("Unsqueeze", ["scores", "axis2"], "column"),
                node("Concat", ["boxes", "column"], "dets", axis=2),
            ]
            dets = helper.make_tensor_value_info("dets", TensorProto.FLOAT, [batch, 3, 5])
            outputs = [dets, outputs[2]]
        inputs = [
            helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, *size]),
        ]
        if tells_size:
            inputs.append(
                helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, [batch, 2])
            )
            nodes[10:11] = [
                node("Cast", ["orig_target_sizes"], "wh", to=TensorProto.FLOAT),
                node("Concat", ["wh", "wh"], "whwh", axis=1),
                node("Unsqueeze", ["whwh", "axis1"], "whole"),
                node("Mul", ["whole", "fractions"], "boxes"),
            ]
        graph = helper.make_graph(
            nodes,
            "detector",
            inputs,
            outputs,
            [
                constant("red", [0], np.int64),
                constant("green", [1], np.int64),
                constant("zero", 0.0),
                constant("half", 0.5),
                constant("one", 1.0),
                constant("side", 31.0),
                constant("axis1", [1], np.int64),
                constant("axis2", [2], np.int64),
                constant("only_right", [[[0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]]),
                constant("corners", [[[0, 0, 0, 16], [8, 8, 40, 24], [4, 12, 12, 28]]]),
                constant("fractions", [[[0, 0, 0.5, 1], [0, 0, 1, 0.5], [0.5, 0.5, 1, 1]]]),
                constant("classes", [[0, 1, 1]], np.int64),
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model)
        path = tmp_path_factory.mktemp("onnx") / "detector.onnx"
        onnx.save(model, str(path))
        return path

    return build


@pytest.fixture(scope="session")
def yolo_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YOLO11n with random weights that finds something: the class biases are raised."""
    from teacher_infer.adapters import ultralytics as adapter

    library = adapter._import_library()
    with adapter.quiet(), adapter.seeded():
        model = library.YOLO("yolo11n.yaml")
        for level in model.model.model[-1].cv3:
            level[-1].bias.data.normal_(-2, 1.5)
        path = tmp_path_factory.mktemp("yolo") / "random.pt"
        model.save(str(path))
    return path


@pytest.fixture(scope="session")
def detr_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers folder: config, processor and weights of a DETR of a few thousand numbers."""
    from transformers import (
        AutoModelForObjectDetection,
        DetrConfig,
        DetrImageProcessor,
        ResNetConfig,
    )

    from teacher_infer.adapters.loading import quiet, seeded

    folder = tmp_path_factory.mktemp("detr")
    with quiet(), seeded():
        backbone = ResNetConfig(
            embedding_size=8,
            hidden_sizes=[8, 8, 8, 8],
            depths=[1, 1, 1, 1],
            out_features=["stage4"],
        )
        config = DetrConfig(
            use_timm_backbone=False,
            use_pretrained_backbone=False,
            backbone=None,
            backbone_config=backbone,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            num_queries=12,
            id2label={0: "N/A", 1: "person", 2: "car", 3: "kite"},
        )
        AutoModelForObjectDetection.from_config(config).save_pretrained(folder)
        DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def grounding_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers folder: a Grounding DINO with 12 queries, random, that reads 32 tokens."""
    import transformers

    from teacher_infer.adapters.loading import quiet, seeded

    folder = tmp_path_factory.mktemp("grounding")
    with quiet(), seeded():
        config = transformers.GroundingDinoConfig(
            backbone_config=transformers.SwinConfig(
                image_size=64,
                embed_dim=8,
                depths=[1, 1, 1, 1],
                num_heads=[1, 1, 1, 1],
                window_size=2,
                out_indices=[2, 3, 4],
            ),
            text_config=transformers.BertConfig(
                vocab_size=max(_bert_vocabulary().values()) + 1,
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=16,
            ),
            d_model=64,
            encoder_layers=1,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            num_queries=12,
            max_text_len=32,
        )
        model: Any = transformers.GroundingDinoForObjectDetection(config)
        for layer in model.model.encoder.layers:
            # scores that differ, rather than all be 1
            layer.text_enhancer_layer.layer_norm_after.weight.data *= 0.1
        model.save_pretrained(folder)
        transformers.GroundingDinoProcessor(
            transformers.GroundingDinoImageProcessor(
                size={"shortest_edge": 64, "longest_edge": 96}
            ),
            transformers.BertTokenizerFast(vocab=_bert_vocabulary()),
        ).save_pretrained(folder)
    return folder


def _bert_vocabulary() -> dict[str, int]:
    """Letters and a few words; what marks phrases is numbered as in BERT, for the model knows it
    by number."""
    numbered = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["tv", "remote", "control", "traffic", "light", "hot", "dog", "word", "thing"]
    rest = [*words, *letters, *(f"##{letter}" for letter in letters)]
    return numbered | {word: 1030 + index for index, word in enumerate(rest)}


@pytest.fixture(scope="session")
def owl_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """owl_folder("owlvit" | "owlv2") -> a transformers folder: random, images of 32 pixels."""
    import transformers

    from teacher_infer.adapters.loading import quiet, seeded

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = ["!", "<|startoftext|>", "<|endoftext|>"]
    tokens += [letter + end for end in ("", "</w>") for letter in letters]
    merges: Any = []
    for word in ("photo", "of", "remote", "control", "traffic", "light", "bernard", "dog", "word"):
        left = word[0]
        for right in [*word[1:-1], f"{word[-1]}</w>"]:
            merges.append((left, right))
            tokens.append(left := left + right)

    def build(kind: str) -> Path:
        name = {"owlvit": "OwlViT", "owlv2": "Owlv2"}[kind]
        sizes = {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        }
        special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        folder = tmp_path_factory.mktemp(kind)
        with quiet(), seeded():
            config = getattr(transformers, f"{name}Config")(
                text_config={"vocab_size": len(tokens), **sizes, **special},
                vision_config={"image_size": 32, "patch_size": 8, **sizes},
                projection_dim=16,
            )
            model = getattr(transformers, f"{name}ForObjectDetection")(config)
            # what starts at zero or near it would give all classes one score, and what grows too
            # large boxes without area
            for parameter in model.parameters():
                parameter.data += 0.2 * torch.randn_like(parameter)
            model.box_head.dense2.weight.data *= 0.05
            model.box_head.dense2.bias.data[2:] += 1
            model.save_pretrained(folder)
            getattr(transformers, f"{name}Processor")(
                getattr(transformers, f"{name}ImageProcessor")(size={"height": 32, "width": 32}),
                transformers.CLIPTokenizer(
                    vocab={token: index for index, token in enumerate(tokens)},
                    merges=merges,
                    pad_token="!",
                    model_max_length=16,
                ),
            ).save_pretrained(folder)
        return folder

    return build


@pytest.fixture(scope="session")
def make_spec(request: pytest.FixtureRequest) -> Callable[..., AdapterSpec]:
    """make_spec(case, **changes) -> the spec of one of the models of `CASES`."""

    def make(case: str, **changes: Any) -> AdapterSpec:
        settings: dict[str, Any] = {"threads": 1, "batch_size": 4}
        model, options = "", {}
        if case.startswith("onnx"):
            batch = {"onnx-free": "n", "onnx-one": 1, "onnx-three": 3}[case]
            model = str(request.getfixturevalue("boxes_model")(batch=batch))
            options = {"format": "boxes"}
            settings |= {"adapter": "onnx", "score_floor": 0.3, "nms_iou": 0.6}
        elif case.startswith("mmdet"):
            model = {
                "mmdet-one-stage": "retinanet_r18_fpn_1x_coco",
                "mmdet-two-stage": "faster-rcnn_r50_fpn_1x_coco",
                "mmdet-detr": "detr_r50_8xb2-150e_coco",
            }[case]
            options = {"weights": "random", "image_size": "96"}
            settings |= {"adapter": "mmdet", "score_floor": 0.01}
        elif case == "ultralytics":
            model = str(request.getfixturevalue("yolo_weights"))
            options = {"image_size": "96"}
            settings |= {"adapter": "ultralytics", "score_floor": 0.3}
        elif case.startswith("torchvision"):
            model = {
                "torchvision-two-stage": "fasterrcnn_mobilenet_v3_large_320_fpn",
                "torchvision-ssd": "ssdlite320_mobilenet_v3_large",
            }[case]
            options = {"weights": "random", "image_size": "96"}
            settings |= {"adapter": "torchvision", "score_floor": 0.005}
        elif case == "transformers":
            model = str(request.getfixturevalue("detr_folder"))
            settings |= {"adapter": "transformers", "score_floor": 0.1}
        elif case == "student":
            model = str(request.getfixturevalue("student_run"))
            settings |= {"adapter": "student", "score_floor": 0.01}
        options |= changes.pop("options", {})
        return AdapterSpec(**(settings | {"model": model, "options": options} | changes))

    return make


@pytest.fixture(scope="session")
def student_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of student-train whose tiny student has learnt nothing."""
    from box_store.categories import Categories, Category, ClassSpace
    from student_train.models import build_student
    from student_train.presets import load_preset
    from student_train.runs.checkpoint import save_weights
    from student_train.runs.run_folder import RunFolder
    from student_train.settings.overrides import Resolved
    from teacher_infer.adapters.loading import seeded

    # ids with a gap: what the teacher returns has to be indices
    categories = Categories((Category(1, "person"), Category(5, "kite"), Category(9, "car")))
    space = ClassSpace("contiguous", categories)
    config = load_preset("dino-micro")
    config = replace(
        config, model=replace(config.model, n_classes=space.n_classes, backbone_weights=None)
    )
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    folder.write(Resolved(config, {}), space, ["student-train", "train"], {})
    with seeded():
        model = build_student(config.model)
    folder.best.parent.mkdir()
    save_weights(folder.best, model.state_dict(), {})
    return folder.root
