"""Random models of each framework, and its own inference with the same weights."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from teacher_infer.adapters.loading import quiet
from teacher_infer.adapters.protocol import AdapterSpec, Detections
from tests.teacher_infer.adapters.parity_case import SIDE, Case, Pair, disturb


def ultralytics_pair(case: Case, folder: Path, request: Any) -> Pair:
    from teacher_infer.adapters import ultralytics as adapter

    library = adapter._import_library()
    kind = library.RTDETR if case.model.startswith("rtdetr") else library.YOLO
    path = str(folder / f"{case.model}.pt")
    with quiet(), adapter.seeded(), torch.no_grad():
        built = kind(f"{case.model}.yaml")
        disturb(built.model, spread=1.5)
        built.save(path)
        model = kind(path)

    def infer(image: np.ndarray) -> Detections:
        bgr = np.ascontiguousarray(image[..., ::-1])
        found = model.predict(bgr, conf=case.floor, imgsz=SIDE, max_det=300, verbose=False)[0].boxes
        return Detections(found.xyxy.numpy(), found.conf.numpy(), found.cls.numpy())

    return AdapterSpec(
        "ultralytics", path, score_floor=case.floor, options={"image_size": str(SIDE)}
    ), infer


def mmdet_pair(case: Case, folder: Path, request: Any) -> Pair:
    from teacher_infer.adapters import mmcv_ops
    from teacher_infer.adapters import mmdet as adapter

    mmcv_ops.install()
    with quiet():
        from mmdet.apis import inference_detector, init_detector
        from mmengine.config import Config

        named = adapter._config_path(AdapterSpec("mmdet", case.model))
        config = Config.fromfile(named)
        # DINO's 900 queries are chosen among the tokens: there have to be as many
        side = 416 if "dino" in case.model else SIDE
        for node in adapter._nodes(config.test_dataloader.dataset.pipeline):
            kind = node.get("type", "")
            if kind.endswith("Resize") and "scale" in node:
                node["scale"] = (side, side)
            elif kind.endswith("Pad") and node.get("size") is not None:
                node["size"] = (side, side)
        for node in adapter._nodes(config.model):
            if "score_thr" in node:
                node["score_thr"] = case.floor
        path, weights = str(folder / "config.py"), str(folder / "weights.pth")
        config.dump(path)
        with adapter.seeded(), torch.no_grad():
            model = init_detector(path, None, device="cpu")
            disturb(model)
            for name, parameter in model.named_parameters():
                if name.endswith("fc_cls.weight"):
                    # a softmax over classes that are all alike stays below any floor
                    parameter.mul_(60)
            torch.save({"state_dict": model.state_dict(), "meta": {}}, weights)

    def infer(image: np.ndarray) -> Detections:
        with quiet():
            found: Any = inference_detector(model, np.ascontiguousarray(image[..., ::-1]))
        found = found.pred_instances
        return Detections(found.bboxes.numpy(), found.scores.numpy(), found.labels.numpy())

    return AdapterSpec("mmdet", path, score_floor=case.floor, options={"weights": weights}), infer


def torchvision_pair(case: Case, folder: Path, request: Any) -> Pair:
    from torchvision.models import detection
    from torchvision.transforms.functional import pil_to_tensor

    two_stage = "rcnn" in case.model
    settings: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": 91}
    settings["box_score_thresh" if two_stage else "score_thresh"] = case.floor
    options = {"weights": str(folder / "weights.pth")}
    if not case.model.startswith("ssd"):
        settings |= {"min_size": SIDE, "max_size": 2 * SIDE}
        options["image_size"] = f"{2 * SIDE}x{SIDE}"
    torch.manual_seed(3)
    model = getattr(detection, case.model)(**settings).eval()
    with torch.no_grad():
        disturb(model)
        head = model.roi_heads.box_predictor.cls_score if two_stage else None
        if head is not None:
            # enough for scores to differ
            head.weight.mul_(20)
    torch.save(model.state_dict(), options["weights"])

    @torch.inference_mode()
    def infer(image: np.ndarray) -> Detections:
        found = model([pil_to_tensor(Image.fromarray(image)) / 255])[0]
        return Detections(*(found[key].numpy() for key in ("boxes", "scores", "labels")))

    return AdapterSpec("torchvision", case.model, score_floor=case.floor, options=options), infer


def transformers_pair(case: Case, folder: Path, request: Any) -> Pair:
    import transformers

    from teacher_infer.adapters.loading import seeded

    name, processor_name, settings = TRANSFORMERS[case.model]
    with quiet(), seeded(), torch.no_grad():
        config = getattr(transformers, f"{name}Config")(**settings(transformers))
        built = getattr(transformers, f"{name}ForObjectDetection")(config)
        disturb(built)
        built.save_pretrained(folder)
        size = {"height": SIDE, "width": SIDE}
        if processor_name != "RTDetr":
            size = {"shortest_edge": 96, "longest_edge": SIDE}
        getattr(transformers, f"{processor_name}ImageProcessor")(size=size).save_pretrained(folder)
        processor: Any = transformers.AutoImageProcessor.from_pretrained(folder)
        model: Any = transformers.AutoModelForObjectDetection.from_pretrained(folder).eval()

    @torch.inference_mode()
    def infer(image: np.ndarray) -> Detections:
        with quiet():
            outputs = model(**processor(images=Image.fromarray(image), return_tensors="pt"))
            found = processor.post_process_object_detection(
                outputs, threshold=case.floor, target_sizes=[image.shape[:2]]
            )[0]
        return Detections(*(found[key].numpy() for key in ("boxes", "scores", "labels")))

    return AdapterSpec("transformers", str(folder), score_floor=case.floor), infer


def _resnet(library: Any, out_features: Sequence[str] = ("stage4",)) -> dict[str, Any]:
    backbone = library.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        out_features=list(out_features),
    )
    return {
        "backbone": None,
        "backbone_config": backbone,
        "use_timm_backbone": False,
        "use_pretrained_backbone": False,
    }


def _small(library: Any, out_features: Sequence[str] = ("stage4",)) -> dict[str, Any]:
    sizes = dict.fromkeys(("encoder_layers", "decoder_layers"), 2)
    sizes |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)
    sizes |= dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "d_model"), 32)
    return {**sizes, "num_queries": 30, "num_labels": 5, **_resnet(library, out_features)}


def _hybrid(library: Any, backbone: str) -> dict[str, Any]:
    layers: Any = {"embedding_size": 8, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
    if backbone == "HGNetV2Config":
        layers |= {
            "stem_channels": [3, 8, 8],
            "stage_in_channels": [8, 8, 8, 8],
            "stage_mid_channels": [8, 8, 8, 8],
            "stage_out_channels": [8, 8, 8, 8],
            "stage_num_blocks": [1, 1, 1, 1],
            "stage_numb_of_layers": [1, 1, 1, 1],
        }
        layers.pop("embedding_size")
    config = getattr(library, backbone)(**layers, out_features=["stage2", "stage3", "stage4"])
    return {
        "backbone_config": config,
        "encoder_hidden_dim": 32,
        "encoder_in_channels": [8, 8, 8],
        "encoder_ffn_dim": 32,
        "encoder_attention_heads": 2,
        "feat_strides": [8, 16, 32],
        "d_model": 32,
        "decoder_in_channels": [32, 32, 32],
        "decoder_ffn_dim": 32,
        "decoder_layers": 2,
        "decoder_attention_heads": 2,
        "decoder_n_points": 4,
        "num_queries": 30,
        "num_labels": 5,
        "num_feature_levels": 3,
    }


def _yolos(library: Any) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": [96, 192],
        "num_detection_tokens": 30,
        "num_labels": 5,
    }


# model -> (class prefix, prefix of its processor, what its config is given)
TRANSFORMERS: dict[str, tuple[str, str, Callable[[Any], dict[str, Any]]]] = {
    "detr": ("Detr", "Detr", _small),
    "conditional_detr": ("ConditionalDetr", "ConditionalDetr", _small),
    "deformable_detr": (
        "DeformableDetr",
        "DeformableDetr",
        lambda library: _small(library, ("stage2", "stage3", "stage4")),
    ),
    "rt_detr": ("RTDetr", "RTDetr", lambda library: _hybrid(library, "RTDetrResNetConfig")),
    "rt_detr_v2": ("RTDetrV2", "RTDetr", lambda library: _hybrid(library, "RTDetrResNetConfig")),
    "d_fine": ("DFine", "RTDetr", lambda library: _hybrid(library, "HGNetV2Config")),
    "yolos": ("Yolos", "Yolos", _yolos),
}


def student_pair(case: Case, folder: Path, request: Any) -> Pair:
    from student_train.predictor import load_predictor

    run: Path = request.getfixturevalue("student_run")
    predictor = load_predictor(run, "cpu")

    def infer(image: np.ndarray) -> Detections:
        found = predictor.predict([image])[0]
        return Detections(found.boxes_xyxy, found.scores, found.class_ids)

    return AdapterSpec("student", str(run), score_floor=case.floor), infer
