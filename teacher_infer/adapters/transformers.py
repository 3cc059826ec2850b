"""Teachers from Hugging Face transformers: model and image processor of a folder or a hub id."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from box_store.errors import UsageError
from teacher_infer.adapter import AdapterError, AdapterSpec, Detections
from teacher_infer.adapters.batching import detect_by_size
from teacher_infer.adapters.loading import (
    RANDOM,
    image_size,
    import_library,
    quiet,
    seeded,
    torch_device,
)

_CONFIGS = ("config.json", "preprocessor_config.json")


def load(spec: AdapterSpec) -> "TransformersDetector":
    """Build model and processor, from the folder, or else from the hub or its local cache."""
    is_random = _is_random(spec)
    library = import_library("transformers", extra="transformers")
    try:
        with quiet():
            processor = library.AutoImageProcessor.from_pretrained(spec.model)
            if is_random:
                config = library.AutoConfig.from_pretrained(spec.model)
                # the backbone's ImageNet weights would be a download of their own
                config.use_pretrained_backbone = False
                with seeded():
                    model = library.AutoModelForObjectDetection.from_config(config)
            else:
                model = library.AutoModelForObjectDetection.from_pretrained(spec.model)
    except (OSError, ValueError, KeyError) as error:
        raise AdapterError(
            f"transformers can't load a detector from {spec.model!r}: expected a folder with "
            "config.json, preprocessor_config.json and model.safetensors, or the id of a detection "
            f"model on the hub (which needs the network once). It said: {_first_line(error)}"
        ) from error
    if not hasattr(processor, "post_process_object_detection"):
        raise AdapterError(
            f"{spec.model}: {type(processor).__name__} can't turn outputs into boxes; expected the "
            "processor of a detection model"
        )
    return TransformersDetector(model, processor, spec)


def weights_files(spec: AdapterSpec) -> list[Path]:
    """Weights, config and preprocessing in the folder, or what of them the hub's cache holds."""
    folder = Path(spec.model).expanduser()
    if folder.is_dir():
        weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
        configs = [folder / name for name in _CONFIGS if (folder / name).is_file()]
        return configs + ([] if _is_random(spec) else weights)
    hub = import_library("huggingface_hub", extra="transformers")
    names = _CONFIGS if _is_random(spec) else (*_CONFIGS, "model.safetensors")
    try:
        cached = [hub.try_to_load_from_cache(spec.model, name) for name in names]
    except ValueError as error:
        raise AdapterError(f"{spec.model!r} is neither a folder nor the id of a model") from error
    return [Path(path) for path in cached if isinstance(path, str)]


class TransformersDetector:
    """A `Detector` over an AutoModelForObjectDetection and its image processor."""

    licence = "unknown"
    # the DETR family, which is what the library has, suppresses nothing
    nms_iou = None

    def __init__(self, model: Any, processor: Any, spec: AdapterSpec) -> None:
        labels: dict[int, str] = model.config.id2label
        self.class_names = tuple(labels.get(index, "") for index in range(max(labels) + 1))
        self.versions = {"transformers": version("transformers"), "torch": torch.__version__}
        self._device = torch_device(spec.device)
        self._model = model.to(self._device).eval()
        self._processor = processor
        self._floor = spec.score_floor
        self._size = _size(spec, processor)

    def detect(self, images: list[np.ndarray]) -> list[Detections]:
        """As `Detector.detect`."""
        return detect_by_size(images, self._detect_equal)

    @torch.inference_mode()
    def _detect_equal(self, images: list[np.ndarray]) -> list[Detections]:
        with quiet():
            # said outright, because an image of 1 x 1 or 3 x 3 pixels leaves it open
            inputs = self._processor(
                images=images, return_tensors="pt", input_data_format="channels_last", **self._size
            ).to(self._device)
            outputs = self._model(**inputs)
            results = self._processor.post_process_object_detection(
                outputs,
                threshold=self._floor,
                target_sizes=[image.shape[:2] for image in images],
            )
        return [
            Detections(
                found["boxes"].float().cpu().numpy(),
                found["scores"].float().cpu().numpy(),
                found["labels"].cpu().numpy(),
            )
            for found in results
        ]


def _size(spec: AdapterSpec, processor: Any) -> dict[str, Any]:
    wanted = image_size(spec)
    if wanted is None:
        return {}
    if "height" in processor.size:
        return {"size": {"height": wanted[1], "width": wanted[0]}}
    return {"size": {"shortest_edge": min(wanted), "longest_edge": max(wanted)}}


def _is_random(spec: AdapterSpec) -> bool:
    weights = spec.option("weights")
    if weights not in (None, RANDOM):
        raise UsageError(
            f"weights={weights}: a transformers model brings its weights along; give its folder as "
            "the model, or weights=random"
        )
    return weights == RANDOM


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
