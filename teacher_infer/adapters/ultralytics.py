"""Teachers from Ultralytics: YOLO and RT-DETR.

The library is AGPL-3.0: it is never a default, this module is the only one that imports it, and
boxes are all that leaves the process. A .pt file is a pickle and can run code when it is opened;
load only files whose source you trust.
"""

import atexit
import logging
import os
import shutil
import tempfile
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from box_store.errors import UsageError
from box_store.places.locations import cache_folder
from teacher_infer.adapters.batching import detect_by_size
from teacher_infer.adapters.info import AdapterInfo, Option
from teacher_infer.adapters.loading import (
    image_size,
    import_library,
    limit_opencv_threads,
    quiet,
    seeded,
    torch_device,
)
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec, Detections

_log = logging.getLogger(__name__)
_CONFIG = (".yaml", ".yml")
# the library's own default
_NMS_IOU = 0.7
_MAX_DET = 300


def load(spec: AdapterSpec) -> "UltralyticsDetector":
    """Load the .pt file, download it where it is a published name, or build from a .yaml."""
    is_offline = os.environ.get("YOLO_OFFLINE", "").lower() in ("1", "true", "yes")
    library = _import_library()
    limit_opencv_threads(spec)
    model_class = library.RTDETR if "rtdetr" in Path(spec.model).stem.lower() else library.YOLO
    path = _path(spec)
    if not path.is_file() and path.suffix not in _CONFIG:
        _download(path, is_offline)
    try:
        with quiet(), seeded():
            model = model_class(str(path))
    except Exception as error:  # pickles and YAML raise what they like
        raise AdapterError(
            f"ultralytics can't load {spec.model!r}: expected a .pt file, a published name such as "
            f"yolo11m.pt, or a model .yaml. It said: {error}"
        ) from error
    if model.task not in ("detect", "segment", "pose"):
        raise AdapterError(f"{spec.model} is a model for {model.task}: it doesn't predict boxes")
    return UltralyticsDetector(model, spec)


def weights_files(spec: AdapterSpec) -> list[Path]:
    """The .pt or .yaml file; nothing yet for a published name that isn't downloaded."""
    path = _path(spec)
    return [path] if path.is_file() else []


class UltralyticsDetector:
    """A `Detector` over an Ultralytics model, run through the library's own predictor."""

    licence = "AGPL-3.0"
    # the library has done it
    nms_iou = None

    def __init__(self, model: Any, spec: AdapterSpec) -> None:
        import torch

        names: dict[int, str] = model.names
        self.class_names = tuple(names.get(index, "") for index in range(max(names) + 1))
        self.versions = {"ultralytics": version("ultralytics"), "torch": torch.__version__}
        self._model = model
        nms_iou = spec.own_nms(_NMS_IOU)
        self.runtime = {"nms": _nms(model, nms_iou)}
        self._arguments: dict[str, Any] = {
            "conf": spec.score_floor,
            "iou": nms_iou,
            "max_det": max(spec.top_k, _MAX_DET),
            # as an object: for the string "cpu" the library hides the GPUs from the whole process
            "device": torch.device(torch_device(spec.device)),
            "verbose": False,
            "save": False,
        }
        if (size := image_size(spec)) is not None:
            self._arguments["imgsz"] = max(size)

    def detect(self, images: list[np.ndarray]) -> list[Detections]:
        """As `Detector.detect`."""
        return detect_by_size(images, self._detect_equal)

    def _detect_equal(self, images: list[np.ndarray]) -> list[Detections]:
        bgr = [np.ascontiguousarray(image[..., ::-1]) for image in images]
        with quiet():
            results = self._model.predict(bgr, **self._arguments)
        return [
            Detections(
                found.boxes.xyxy.cpu().numpy(),
                found.boxes.conf.cpu().numpy(),
                found.boxes.cls.cpu().numpy(),
            )
            for found in results
        ]


def _nms(model: Any, iou: float) -> str:
    """Which NMS the library does; RT-DETR and heads trained end to end need none."""
    head = model.model.model[-1]
    if type(head).__name__.startswith("RTDETR") or getattr(head, "end2end", False):
        return "none"
    return f"{iou:g} by ultralytics"


def _import_library() -> Any:
    """Import it without look-ups in the network, reports of use, or files in the home folder."""
    os.environ.setdefault("YOLO_OFFLINE", "True")
    # it logs to stdout, which may be carrying somebody's JSON
    os.environ.setdefault("YOLO_VERBOSE", "False")
    if "YOLO_CONFIG_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="teach-detr-ultralytics-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["YOLO_CONFIG_DIR"] = folder
    pillow_open = Image.open
    library = import_library("ultralytics", extra="ultralytics")
    # it puts one of its own there, which may install packages
    Image.open = pillow_open
    if library.settings["sync"]:
        library.settings.update({"sync": False})
    # its NMS gives up after about two seconds and leaves the rest of a batch empty; a busy
    # machine would then store "saw nothing" for images that hold something
    suppression: Any = import_module("ultralytics.utils.nms")
    if not isinstance(suppression.non_max_suppression, partial):
        suppression.non_max_suppression = partial(
            suppression.non_max_suppression, max_time_img=float("inf")
        )
    return library


def _path(spec: AdapterSpec) -> Path:
    """The file that is meant: as given, or where a download of that name goes."""
    path = Path(spec.model).expanduser()
    if path.is_file() or path.suffix in _CONFIG:
        return path
    if path.suffix != ".pt":
        raise UsageError(
            f"ultralytics:{spec.model}: expected a .pt file, a published name such as yolo11m.pt, "
            "or a model .yaml"
        )
    if path.parent != Path():
        raise AdapterError(f"weights not found: expected a file at {path}")
    return cache_folder() / "ultralytics" / path.name


def _download(path: Path, is_offline: bool) -> None:
    advice = "pass the path of a .pt file that you have"
    if is_offline:
        raise AdapterError(
            f"{path.name} isn't on this machine, and YOLO_OFFLINE forbids its download: {advice}"
        )
    _log.warning("downloading %s (AGPL-3.0) from Ultralytics' releases to %s", path.name, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with quiet():
            import_module("ultralytics.utils.downloads").attempt_download_asset(path)
    except Exception as error:  # from sockets to HTTP answers
        raise AdapterError(f"{path.name} couldn't be downloaded ({error}): {advice}") from error
    if not path.is_file():
        raise AdapterError(f"Ultralytics has no published model {path.name!r}: {advice}")


ADAPTER = AdapterInfo(
    name="ultralytics",
    summary="YOLO and RT-DETR of Ultralytics: a .pt file or name, or a .yaml (random weights)",
    example="yolo=ultralytics:yolo11m.pt,image_size=640",
    licence="AGPL-3.0",
    load=load,
    weights_files=weights_files,
    options={
        "image_size": Option("longest side that the image is scaled to", "the model's, or 640")
    },
    extra="ultralytics",
    models=(
        "a path of a .pt file (a pickle, which can run code: trust it)",
        "a published name, as yolo11m.pt, yolo26n.pt, rtdetr-l.pt (downloaded once)",
        "a model's .yaml: random weights, for tests",
    ),
    reads=".pt",
    libraries=("ultralytics",),
    # AGPL code stays in a process of its own; what crosses is boxes
    isolated=True,
)
