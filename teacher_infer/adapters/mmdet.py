"""Teachers from MMDetection 3: any of its configs whose operators are supplied, with its weights.

Runs without a compiled mmcv, see `mmcv_ops`. A config is a Python file that is executed when it is
read: use only those whose source you trust. Checkpoints can't run code, see `checkpoints`.
"""

from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from box_store.errors import UsageError, nearest
from teacher_infer.adapters.batching import detect_by_size
from teacher_infer.adapters.checkpoints import MMENGINE_LOG, load_checkpoint, read_checkpoint
from teacher_infer.adapters.class_names import COCO_80, class_names
from teacher_infer.adapters.info import AdapterInfo, Option, classes_option, weights_file_option
from teacher_infer.adapters.loading import (
    RANDOM,
    existing_file,
    image_size,
    import_library,
    limit_opencv_threads,
    quiet,
    seeded,
    torch_device,
    weights_option,
)
from teacher_infer.adapters.mmdet_configs import config_files
from teacher_infer.adapters.protocol import NO_NMS, AdapterError, AdapterSpec, Detections

# heads whose boxes don't depend on the masks that they would go on to compute
_HEADS_WITH_SPARE_MASKS = ("StandardRoIHead", "CascadeRoIHead")


def load(spec: AdapterSpec) -> "MmdetDetector":
    """Build the config's model and load its weights, without any download."""
    from teacher_infer.adapters import mmcv_ops

    weights = weights_option(spec)
    mmcv_ops.install()
    import_library("mmdet", extra="mmdet")
    limit_opencv_threads(spec)
    path = _config_path(spec)
    with quiet():
        import_module("mmdet.utils").register_all_modules(init_default_scope=False)
        try:
            config = import_module("mmengine.config").Config.fromfile(path)
        except Exception as error:  # a config is Python: it can raise anything
            raise AdapterError(f"{path}: mmengine can't read this config: {error}") from error
        _adapt(config, spec)
        scope = config.get("default_scope", "mmdet")
        import_module("mmengine.registry").init_default_scope(scope)
        try:
            with seeded():
                model = import_module("mmdet.registry").MODELS.build(config.model)
                if weights == RANDOM:
                    # the constructors of some leave parameters as the memory was
                    import_module("mmengine.logging").MMLogger.get_current_instance().setLevel(
                        "ERROR"
                    )
                    model.init_weights()
        except Exception as error:  # so can the constructors that it names
            raise AdapterError(f"{path}: mmdet can't build this model: {error}") from error
        model = import_module("mmengine.model").revert_sync_batchnorm(model)
    meta: dict[str, Any] = {}
    if weights != RANDOM:
        file = existing_file(weights, "weights")
        checkpoint = read_checkpoint(file, MMENGINE_LOG)
        load_checkpoint(model, checkpoint)
        meta = checkpoint.meta
    names = class_names(spec) or _names_of(config, meta)
    _check_number(names, config, spec)
    return MmdetDetector(model, config, names, spec)


def weights_files(spec: AdapterSpec) -> list[Path]:
    """The config, and those that it inherits from."""
    weights_option(spec)
    return config_files(_config_path(spec))


class MmdetDetector:
    """A `Detector` over an mmdet model and the test pipeline of its config."""

    licence = "Apache-2.0"
    # the models have done it
    nms_iou = None

    def __init__(self, model: Any, config: Any, names: tuple[str, ...], spec: AdapterSpec) -> None:
        import torch

        self.class_names = names
        self.runtime = {
            "nms": _nms(config),
            "resize": f"opencv {'.'.join(import_module('cv2').__version__.split('.')[:2])}",
        }
        self.versions = {name: version(name) for name in ("mmdet", "mmengine")}
        self.versions |= {"mmcv": import_module("mmcv").__version__, "torch": torch.__version__}
        head: Any = getattr(model, "roi_head", None)
        if type(head).__name__ in _HEADS_WITH_SPARE_MASKS and head.with_mask:
            head.mask_head = None
        self._model = model.to(torch_device(spec.device)).eval()
        with quiet():
            self._pipeline = _pipeline(config, spec)

    def detect(self, images: list[np.ndarray]) -> list[Detections]:
        """As `Detector.detect`."""
        return detect_by_size(images, self._detect_equal)

    def _detect_equal(self, images: list[np.ndarray]) -> list[Detections]:
        import torch

        with quiet(), torch.inference_mode():
            # mmdet reads images with OpenCV, so its pipelines and means expect BGR
            samples = [
                self._pipeline({"img": np.ascontiguousarray(image[..., ::-1]), "img_id": index})
                for index, image in enumerate(images)
            ]
            results = self._model.test_step(
                {
                    "inputs": [sample["inputs"] for sample in samples],
                    "data_samples": [sample["data_samples"] for sample in samples],
                }
            )
        return [
            Detections(
                result.pred_instances.bboxes.float().cpu().numpy(),
                result.pred_instances.scores.float().cpu().numpy(),
                result.pred_instances.labels.cpu().numpy(),
            )
            for result in results
        ]


def _config_path(spec: AdapterSpec) -> Path:
    """A path as it is; anything else is looked up among the configs inside mmdet's wheel."""
    path = Path(spec.model).expanduser()
    if path.is_file():
        return path
    if path.suffix and len(path.parts) > 1:
        raise AdapterError(f"config not found: expected a file at {path}")
    package = find_spec("mmdet")
    if package is None or package.origin is None:
        import_library("mmdet", extra="mmdet")
        raise AdapterError("mmdet is installed without files: its configs can't be found")
    folder = Path(package.origin).parent / ".mim" / "configs"
    known = {found.stem: found for found in sorted(folder.rglob("*.py"))}
    name = path.stem if path.suffix == ".py" else spec.model
    if name not in known:
        raise UsageError(
            f"mmdet has no config {spec.model!r}: expected a path, or one of the {len(known)} "
            f"names under {folder}.{nearest(name, known)}"
        )
    return known[name]


def _adapt(config: Any, spec: AdapterSpec) -> None:
    """Drop downloads of backbone weights, and let the model report all that the spec asks for."""
    if "model" not in config:
        raise AdapterError(f"{spec.model}: this config has no `model`: it is a part of others")
    for node in _nodes(config.model):
        if isinstance(node.get("init_cfg"), dict) and node["init_cfg"].get("type") == "Pretrained":
            node["init_cfg"] = None
        if isinstance(node.get("pretrained"), str):
            node["pretrained"] = None
    limits = config.model.get("test_cfg") or {}
    for node in (limits, limits.get("rcnn") or {}):
        if "score_thr" in node:
            node["score_thr"] = min(node["score_thr"], spec.score_floor)
        if "max_per_img" in node:
            node["max_per_img"] = max(node["max_per_img"], spec.top_k)
        if "iou_threshold" in (node.get("nms") or {}):
            node["nms"]["iou_threshold"] = spec.own_nms(node["nms"]["iou_threshold"])
            if spec.nms_iou == NO_NMS:
                # a soft one would lower scores whatever its threshold
                node["nms"]["type"] = "nms"


def _nms(config: Any) -> str:
    """Which NMS the model does: that of its last stage."""
    limits = config.model.get("test_cfg") or {}
    steps = [(node.get("nms") or {}) for node in (limits.get("rcnn") or {}, limits)]
    step = next((step for step in steps if "iou_threshold" in step), None)
    return f"{step['iou_threshold']:g} by mmdet ({step.get('type', 'nms')})" if step else "none"


def _pipeline(config: Any, spec: AdapterSpec) -> Any:
    """The config's test pipeline, from an array instead of a file, without annotations."""
    steps = import_module("mmdet.utils").get_test_pipeline_cfg(config.copy())
    steps = [step for step in steps if "Annotations" not in step["type"]]
    if "LoadImage" not in steps[0]["type"]:
        raise AdapterError(f"{spec.model}: its test pipeline begins with {steps[0]['type']}")
    steps[0] = {"type": "mmdet.LoadImageFromNDArray"}
    size = image_size(spec)
    for node in _nodes(steps) if size is not None else ():
        if node.get("type", "").endswith("Resize") and "scale" in node:
            node["scale"] = size
        elif node.get("type", "").endswith("Pad") and node.get("size") is not None:
            node["size"] = size
    return import_module("mmcv.transforms").Compose(steps)


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every dict in nested dicts and lists."""
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    if isinstance(tree, list | tuple):
        for branch in tree:
            yield from _nodes(branch)


def _names_of(config: Any, meta: dict[str, Any]) -> tuple[str, ...]:
    """Class names from the checkpoint, else from the config's data set, else COCO's."""
    saved = {key.lower(): value for key, value in (meta.get("dataset_meta") or meta).items()}
    places = [saved, config.get("metainfo") or {}]
    loader = config.get("test_dataloader")
    places += [node["metainfo"] for node in _nodes(loader) if node.get("metainfo")]
    for place in places:
        for key in ("classes", "CLASSES"):
            names = place.get(key)
            if names:
                return (names,) if isinstance(names, str) else tuple(names)
    return COCO_80


def _check_number(names: tuple[str, ...], config: Any, spec: AdapterSpec) -> None:
    counts = {node["num_classes"] for node in _nodes(config.model) if node.get("num_classes")}
    if counts and len(names) not in counts:
        expected = " or ".join(str(count) for count in sorted(counts))
        raise AdapterError(
            f"{spec.model} predicts {expected} classes, but {len(names)} class names are known: "
            "give the right list with classes=FILE"
        )


ADAPTER = AdapterInfo(
    name="mmdet",
    summary="MMDetection 3: a config (path, or a name among those in its wheel) and weights",
    example="rcnn=mmdet:faster-rcnn_r50_fpn_1x_coco,weights=faster_rcnn.pth",
    licence="Apache-2.0",
    load=load,
    weights_files=weights_files,
    options={
        "weights": weights_file_option("checkpoint file, or 'random' (seeded; for tests)", RANDOM),
        "classes": classes_option("the checkpoint's, the config's, else COCO's 80"),
        "image_size": Option("S or WxH that the image is scaled to fit into", "the config's"),
    },
    extra="mmdet",
    models=(
        "a path of a config (.py; it is run: trust it)",
        "the name of a config in mmdet's wheel, without .py",
    ),
    reads=".pth or .safetensors, read without running anything of it",
    libraries=("mmdet", "mmengine", "mmcv-lite|mmcv"),
)
