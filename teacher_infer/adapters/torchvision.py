"""Teachers from torchvision's detection builders, which bring their preprocessing and NMS along."""

from pathlib import Path
from typing import Any

import numpy as np

from box_store.errors import UsageError, nearest
from teacher_infer.adapters.batching import detect_by_size
from teacher_infer.adapters.checkpoints import load_checkpoint, read_checkpoint
from teacher_infer.adapters.class_names import class_names
from teacher_infer.adapters.info import AdapterInfo, Option, classes_option, weights_file_option
from teacher_infer.adapters.loading import (
    RANDOM,
    existing_file,
    image_size,
    seeded,
    torch_device,
    weights_option,
)
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec, Detections

_DEFAULT = "DEFAULT"
_BACKGROUND = "__background__"
_HINT = " or weights=DEFAULT (torchvision's own, downloaded)"


def load(spec: AdapterSpec) -> "TorchvisionDetector":
    """Build the model and load its weights."""
    from torchvision.models import get_model

    builder = _builder(spec)
    weights = weights_option(spec, _HINT)
    published = _published(builder)
    names = _with_background(class_names(spec)) or tuple(published.meta["categories"])
    if weights == _DEFAULT:
        if class_names(spec):
            raise UsageError("weights=DEFAULT comes with its own class names: leave classes= out")
        try:
            model = get_model(builder, weights=published)
        except OSError as error:
            raise AdapterError(
                f"torchvision's weights for {builder} couldn't be downloaded from "
                f"{published.url} ({error}): fetch the file and pass weights=FILE"
            ) from error
    else:
        with seeded():
            model = get_model(builder, weights=None, weights_backbone=None, num_classes=len(names))
        if weights != RANDOM:
            path = existing_file(weights, "weights")
            load_checkpoint(model, read_checkpoint(path))
    return TorchvisionDetector(model, names, spec)


def weights_files(spec: AdapterSpec) -> list[Path]:
    """torchvision's own checkpoint, where that is asked for and downloaded already."""
    import torch

    builder = _builder(spec)
    if weights_option(spec, _HINT) != _DEFAULT:
        return []
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(_published(builder).url).name
    return [path] if path.is_file() else []


class TorchvisionDetector:
    """A `Detector` over a torchvision detection model."""

    licence = "BSD-3-Clause"
    # the models have done it
    nms_iou = None

    def __init__(self, model: Any, names: tuple[str, ...], spec: AdapterSpec) -> None:
        import torch
        import torchvision

        self.class_names = names
        self.versions = {"torchvision": torchvision.__version__, "torch": torch.__version__}
        self._device = torch_device(spec.device)
        # two-stage models keep the limits on the heads of the second stage, the others on top
        head = getattr(model, "roi_heads", model)
        head.score_thresh = spec.score_floor
        head.detections_per_img = max(spec.top_k, head.detections_per_img)
        head.nms_thresh = spec.own_nms(head.nms_thresh)
        self.runtime = {"nms": f"{head.nms_thresh:g} by torchvision"}
        if (size := image_size(spec)) is not None:
            if getattr(model.transform, "fixed_size", None) is not None:
                model.transform.fixed_size = size
            model.transform.min_size = (min(size),)
            model.transform.max_size = max(size)
        self._model = model.to(self._device).eval()

    def detect(self, images: list[np.ndarray]) -> list[Detections]:
        """As `Detector.detect`."""
        return detect_by_size(images, self._detect_equal)

    def _detect_equal(self, images: list[np.ndarray]) -> list[Detections]:
        import torch

        tensors = [
            torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
            .to(self._device)
            .float()
            .div(255)
            for image in images
        ]
        with torch.inference_mode():
            results = self._model(tensors)
        return [
            Detections(
                found["boxes"].cpu().numpy(),
                found["scores"].cpu().numpy(),
                found["labels"].cpu().numpy(),
            )
            for found in results
        ]


def _builder(spec: AdapterSpec) -> str:
    import torchvision
    from torchvision.models import list_models

    known = list_models(module=torchvision.models.detection)
    if spec.model not in known:
        raise UsageError(
            f"torchvision has no detection model {spec.model!r}: expected one of "
            f"{', '.join(known)}.{nearest(spec.model, known)}"
        )
    return spec.model


def _published(builder: str) -> Any:
    """torchvision's own weights for a builder: url, class names."""
    from torchvision.models import get_model_weights

    return get_model_weights(builder)["DEFAULT"]


def _with_background(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """torchvision's label 0 is the background; a list of names needn't say so."""
    if names is None or names[0] == _BACKGROUND:
        return names
    return (_BACKGROUND, *names)


ADAPTER = AdapterInfo(
    name="torchvision",
    summary="a builder of torchvision.models.detection",
    example="retina=torchvision:retinanet_resnet50_fpn_v2,weights=DEFAULT",
    licence="BSD-3-Clause",
    load=load,
    weights_files=weights_files,
    options={
        "weights": weights_file_option(
            "checkpoint file, DEFAULT (downloaded), or 'random' (seeded; for tests)",
            _DEFAULT,
            RANDOM,
        ),
        "classes": classes_option("COCO's", "file of class names, which also sets their number"),
        "image_size": Option("S or WxH that the image is scaled to fit into", "the builder's"),
    },
    models=("the name of a builder, as fasterrcnn_resnet50_fpn_v2, fcos_resnet50_fpn",),
    reads=".pth or .safetensors, read without running anything of it",
    libraries=("torchvision",),
)
