"""Teachers from Hugging Face transformers: model and processor of a folder or a hub id.

Models with classes of their own are here; those that are asked in words are in `open_vocabulary`.
Weights are read from safetensors alone, and code that a repository brings is never run.
"""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from box_store.errors import UsageError, nearest
from teacher_infer.adapters.batching import detect_by_size
from teacher_infer.adapters.info import AdapterInfo, Option
from teacher_infer.adapters.loading import (
    RANDOM,
    image_size,
    import_library,
    quiet,
    seeded,
    torch_device,
)
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec, Detections

_PREPROCESSING = ("preprocessor_config.json", "processor_config.json")
# config and preprocessing, and what turns words into tokens for models that read them
_CONFIGS = (
    "config.json",
    *_PREPROCESSING,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
)
_WEIGHTS = "model.safetensors"
# of the image processor; the first is what transformers 5 takes where it has the choice
_BACKENDS = ("torchvision", "pil")

# (inputs of the image processor on the model's device, (height, width) of each image in pixels)
Find = Callable[[Any, Sequence[tuple[int, int]]], list[Detections]]


def load(spec: AdapterSpec) -> "TransformersDetector":
    """Build model and processor, from the folder, or else from the hub or its local cache."""
    is_random = _is_random(spec)
    backend = _backend(spec)
    library = import_library("transformers", extra="transformers")
    # it imports torch, so not before it is wanted
    from teacher_infer.adapters import open_vocabulary

    try:
        with quiet():
            config = library.AutoConfig.from_pretrained(spec.model)
            in_words = open_vocabulary.is_open(config)
            image_processor = library.AutoImageProcessor.from_pretrained(
                spec.model, backend=backend
            )
            processor = image_processor
            if in_words:
                processor = library.AutoProcessor.from_pretrained(spec.model)
                processor.image_processor = image_processor
            kind = (
                "AutoModelForZeroShotObjectDetection" if in_words else "AutoModelForObjectDetection"
            )
            model = _build(getattr(library, kind), config, spec, is_random)
    except (OSError, ValueError, KeyError) as error:
        raise AdapterError(
            f"transformers can't load a detector from {spec.model!r}: expected a folder with "
            f"config.json, preprocessor_config.json and {_WEIGHTS}, or the id of a detection "
            f"model on the hub (which needs the network once). It said: {_first_line(error)}"
        ) from error
    model = _on_device(model, torch_device(spec.device)).eval()
    if in_words:
        find = open_vocabulary.finder(model, processor, spec)
        return TransformersDetector(model, image_processor, tuple(spec.prompts), find, spec)
    if any(spec.prompts.values()) or spec.negatives:
        raise UsageError(
            f"{spec.model} has classes of its own and reads no prompts: leave prompts out, or name "
            "pairs of classes with map.CLASS=CATEGORY"
        )
    if not hasattr(processor, "post_process_object_detection"):
        raise AdapterError(
            f"{spec.model}: {type(processor).__name__} can't turn outputs into boxes; expected the "
            "processor of a detection model"
        )
    labels: dict[int, str] = config.id2label
    names = tuple(labels.get(index, "") for index in range(max(labels) + 1))
    find = _ByClass(model, processor, spec.score_floor)
    return TransformersDetector(model, processor, names, find, spec)


def weights_files(spec: AdapterSpec) -> list[Path]:
    """Weights, config and preprocessing in the folder, or what of them the hub's cache holds."""
    folder = Path(spec.model).expanduser()
    if folder.is_dir():
        weights = sorted(folder.glob("*.safetensors"))
        configs = [folder / name for name in _CONFIGS if (folder / name).is_file()]
        return configs + ([] if _is_random(spec) else weights)
    hub = import_library("huggingface_hub", extra="transformers")
    try:
        cached = [hub.try_to_load_from_cache(spec.model, name) for name in _CONFIGS]
    except ValueError as error:
        raise AdapterError(f"{spec.model!r} is neither a folder nor the id of a model") from error
    found = [Path(path) for path in cached if isinstance(path, str)]
    # in one file or in several; of one version of the repository either way
    weights = sorted(found[0].parent.glob("*.safetensors")) if found else []
    return found + ([] if _is_random(spec) else weights)


class TransformersDetector:
    """A `Detector` over a detection model, its image processor, and what reads boxes off it."""

    licence = "unknown"
    # the DETR family and the models that read words suppress nothing
    nms_iou = None

    def __init__(
        self,
        model: Any,
        image_processor: Any,
        class_names: tuple[str, ...],
        find: Find,
        spec: AdapterSpec,
    ) -> None:
        import torch

        self.class_names = class_names
        self.versions = {"transformers": version("transformers"), "torch": torch.__version__}
        self.runtime = {
            "nms": "none",
            "dtype": str(model.dtype).removeprefix("torch."),
            "processor": _resized_by(image_processor),
        }
        self._device, self._dtype = model.device, model.dtype
        self._processor = image_processor
        self._find = find
        self._size = _size(spec, image_processor)

    def detect(self, images: list[np.ndarray]) -> list[Detections]:
        """As `Detector.detect`."""
        return detect_by_size(images, self._detect_equal)

    def _detect_equal(self, images: list[np.ndarray]) -> list[Detections]:
        import torch

        with quiet(), torch.inference_mode():
            # said outright, because an image of 1 x 1 or 3 x 3 pixels leaves it open
            inputs = self._processor(
                images=images, return_tensors="pt", input_data_format="channels_last", **self._size
            ).to(self._device, self._dtype)
            return self._find(inputs, [(image.shape[0], image.shape[1]) for image in images])


class _ByClass:
    """Boxes of a model with classes of its own."""

    def __init__(self, model: Any, processor: Any, floor: float) -> None:
        self._model = model
        self._processor = processor
        self._floor = floor

    def __call__(self, inputs: Any, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        results = self._processor.post_process_object_detection(
            self._model(**inputs), threshold=self._floor, target_sizes=list(sizes)
        )
        return [
            Detections(
                found["boxes"].float().cpu().numpy(),
                found["scores"].float().cpu().numpy(),
                found["labels"].cpu().numpy(),
            )
            for found in results
        ]


def _build(auto: Any, config: Any, spec: AdapterSpec, is_random: bool) -> Any:
    if is_random:
        # the backbone's ImageNet weights would be a download of their own
        config.use_pretrained_backbone = False
        with seeded():
            return auto.from_config(config)
    model, report = auto.from_pretrained(
        spec.model, config=config, use_safetensors=True, output_loading_info=True
    )
    missing = sorted(
        key for key in report["missing_keys"] if not key.endswith("num_batches_tracked")
    )
    if missing:
        raise AdapterError(
            f"{spec.model}: its weights lack {len(missing)} tensors of the model, first "
            f"{missing[0]}, which would stay random: expected the folder of a trained detector"
        )
    return model


def _on_device(model: Any, device: str) -> Any:
    """In the dtype of its file; on a CPU in float32, which is as fast there and knows all of its
    operations."""
    return model.float().to(device) if device == "cpu" else model.to(device)


def _backend(spec: AdapterSpec) -> str:
    """What resizes and normalises: said to the library, whose own choice depends on what else is
    installed, and whose backends give different pixels."""
    name = spec.option("processor") or _BACKENDS[0]
    if name not in _BACKENDS:
        raise UsageError(
            f"processor={name}: expected one of {', '.join(_BACKENDS)}.{nearest(name, _BACKENDS)}"
        )
    return name


def _resized_by(image_processor: Any) -> str:
    """The library that resizes, and the part of its version that may change pixels."""
    is_pil = any(base.__name__ == "PilBackend" for base in type(image_processor).__mro__)
    name = "pillow" if is_pil else "torchvision"
    return f"{name} {'.'.join(version(name).split('.')[:2])}"


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


ADAPTER = AdapterInfo(
    name="transformers",
    summary="a detection model of Hugging Face transformers: a folder or a hub id",
    example="rtdetr=transformers:PekingU/rtdetr_r50vd",
    licence="unknown",
    load=load,
    weights_files=weights_files,
    options={
        "weights": Option("'random' builds from the config alone (seeded; for tests)"),
        "image_size": Option("S or WxH that the processor scales to", "the processor's"),
        "processor": Option("what resizes images: torchvision | pil", "torchvision"),
        "template": Option(
            "open vocabulary: the words around a class name, which {} stands for",
            "a photo of a {} for OWL, else {}",
        ),
    },
    extra="transformers",
    models=(
        "a folder, as save_pretrained leaves it",
        "the id of a model on the hub (downloaded once, or found in its cache)",
        "Grounding DINO, OWL-ViT and OWLv2, as google/owlv2-base-patch16-ensemble: they are "
        "asked for the data set's class names, or for what prompts.CLASS=TEXT|TEXT says; boxes of "
        "not=TEXT|TEXT are left out",
    ),
    reads="model.safetensors with config.json and the processor's files",
    libraries=("transformers",),
    model_is_folder=True,
    open_vocabulary=True,
)
