"""Teachers from ONNX files, run by onnxruntime; a format says what goes in and out."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from box_store.errors import UsageError, nearest
from teacher_infer.adapters.class_names import COCO_80, class_names
from teacher_infer.adapters.info import AdapterInfo, Option, classes_option
from teacher_infer.adapters.loading import existing_file, image_size, import_library
from teacher_infer.adapters.onnx_boxes import FRAMES, LAYOUTS, PLACES, FinishedBoxes, Style
from teacher_infer.adapters.onnx_exports import EXPORTS, Signature, recognise
from teacher_infer.adapters.onnx_files import files_of
from teacher_infer.adapters.onnx_formats import (
    CenterNet,
    FastestDet,
    Format,
    NanoDet,
    Prepared,
    Yolox,
)
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec, Detections, Detector

_FORMATS = {"yolox": Yolox, "nanodet": NanoDet, "centernet": CenterNet, "fastestdet": FastestDet}
_BOXES = "boxes"
_OURS = "teach-detr"
_FORMAT_NAMES = (*_FORMATS, _BOXES, *EXPORTS)
# options that describe files of finished boxes, which an export that is recognised says itself
_STYLE_OPTIONS = ("resize", "colour", "mean", "std", "layout", "frame", "first_label")
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}


def load(spec: AdapterSpec) -> Detector:
    """Open the file; UsageError, MissingLibrary or AdapterError where that can't be done."""
    given = _given_format(spec)
    path = existing_file(spec.model, "ONNX file")
    names = class_names(spec)
    runtime = import_library("onnxruntime", extra="onnx")
    session = _session(runtime, path, spec)
    signature = _signature(session, path)
    if given is None and signature.metadata.get("producer") == _OURS:
        return _student(spec)
    format_ = _format(given, signature, names, spec)
    names = format_.complete(names or format_.class_names or COCO_80)
    format_.n_classes = len(names)
    return OnnxDetector(session, format_, names, spec)


def weights_files(spec: AdapterSpec) -> list[Path]:
    """The ONNX file, and what beside it holds weights or says how to read it."""
    return files_of(existing_file(spec.model, "ONNX file"))


class OnnxDetector:
    """A `Detector` over an onnxruntime session: fixed and free batch sizes, NCHW and NHWC."""

    licence = "unknown"

    def __init__(
        self, session: Any, format_: Format, names: tuple[str, ...], spec: AdapterSpec
    ) -> None:
        self._session = session
        self._format = format_
        self._floor = spec.score_floor
        self._model = spec.model
        self.class_names = names
        self.nms_iou = format_.nms_iou
        self.runtime = {"nms": "none"}
        self.versions = {"onnxruntime": version("onnxruntime")}
        self._read_inputs(spec)

    def detect(self, images: list[np.ndarray]) -> list[Detections]:
        """As `Detector.detect`."""
        prepared = [self._format.prepare(image, self._width, self._height) for image in images]
        step = self._batch_size or len(prepared)
        found: list[Detections] = []
        for start in range(0, len(prepared), step):
            found.extend(self._run(prepared[start : start + step]))
        return found

    def _run(self, batch: list[Prepared]) -> list[Detections]:
        tensors = [one.tensor for one in batch]
        sizes = [(one.image_width, one.image_height) for one in batch]
        # a file of a fixed batch size gets its last image again until the batch is full
        missing = (self._batch_size or len(batch)) - len(batch)
        pixels = np.stack(tensors + tensors[-1:] * missing)
        if self._channels_last:
            pixels = pixels.transpose(0, 2, 3, 1)
        pixels = np.ascontiguousarray(pixels, dtype=self._dtype)
        feeds = {self._input_name: pixels[0] if self._single else pixels}
        if self._sizes_input:
            feeds[self._sizes_input] = np.array(sizes + sizes[-1:] * missing, self._sizes_dtype)
        if self._mask_input:
            # of transformers: 1 where there is image, which here is everywhere
            feeds[self._mask_input] = np.ones(
                (len(pixels), self._height, self._width), self._mask_dtype
            )
        try:
            values = self._session.run(None, feeds)
        except Exception as error:  # onnxruntime's own exceptions share no narrower base
            raise AdapterError(
                f"{self._model}: onnxruntime failed on an input of {list(pixels.shape)}: {error}"
            ) from error
        outputs = dict(zip(self._output_names, values, strict=True))
        split = self._format.split(outputs, len(pixels))
        return [
            self._format.decode(one, image, self._floor)
            for one, image in zip(split[: len(batch)], batch, strict=True)
        ]

    def _read_inputs(self, spec: AdapterSpec) -> None:
        inputs = self._session.get_inputs()
        self._output_names = [output.name for output in self._session.get_outputs()]
        pictures = [one for one in inputs if len(one.shape) == 4 and one.type in _DTYPES]
        pictures = pictures or [
            one for one in inputs if len(one.shape) == 3 and one.type in _DTYPES
        ]
        others = [one for one in inputs if one not in pictures]
        mask = next((one for one in others if one.name == "pixel_mask"), None)
        others = [one for one in others if one is not mask]
        tells_size = len(others) == 1 and "size" in others[0].name.lower()
        if len(pictures) != 1 or (others and not tells_size):
            shapes = {one.name: one.shape for one in inputs}
            raise AdapterError(
                f"{spec.model}: expected one image input of float32, float16 or uint8, and at most "
                f"orig_target_sizes or pixel_mask beside it, got {shapes}"
            )
        picture = pictures[0]
        self._input_name = picture.name
        self._mask_input = mask.name if mask is not None else ""
        self._mask_dtype = bool if mask is not None and "bool" in mask.type else np.int64
        self._dtype = _DTYPES[picture.type]
        self._sizes_input = others[0].name if others else ""
        self._sizes_dtype = np.int32 if others and "int32" in others[0].type else np.int64
        if isinstance(self._format, FinishedBoxes):
            self._format.boxes_in_image = bool(others)

        self._single = len(picture.shape) == 3
        batch = 1 if self._single else picture.shape[0]
        self._batch_size = batch if isinstance(batch, int) and batch > 0 else None
        sides = list(picture.shape)[-3:]
        self._channels_last = sides[2] == 3 and sides[0] != 3
        height, width = sides[:2] if self._channels_last else sides[1:]
        wanted = image_size(spec) or self._format.image_size
        if isinstance(height, int) and isinstance(width, int):
            if image_size(spec) not in (None, (width, height)):
                raise UsageError(
                    f"{spec.model} has a fixed input of {width}x{height}: leave image_size= out"
                )
            wanted = (width, height)
        if wanted is None:
            raise UsageError(
                f"{spec.model} leaves its input size open: say it with image_size=640, for example"
            )
        self._width, self._height = wanted


def _session(runtime: Any, path: Path, spec: AdapterSpec) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.inter_op_num_threads = 1
    if spec.threads is not None:
        options.intra_op_num_threads = spec.threads
        # idle threads of several workers would otherwise spin on each other's cores
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = _providers(runtime, spec)
    try:
        return runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's own exceptions share no narrower base
        raise AdapterError(f"{path}: onnxruntime can't open it as a model: {error}") from error


def _student(spec: AdapterSpec) -> Detector:
    """A file of `student-train export`, which says itself how it is used."""
    if spec.options:
        raise UsageError(
            f"{spec.model} is an exported student, which says itself how to read it: leave "
            f"{', '.join(sorted(spec.options))} out"
        )
    from teacher_infer.adapters.student import load as load_student

    return load_student(spec)


def _providers(runtime: Any, spec: AdapterSpec) -> list[Any]:
    """Execution providers for the device: the CPU, or a CUDA device with the CPU behind it."""
    kind, _, index = spec.device.partition(":")
    has_cuda = "CUDAExecutionProvider" in runtime.get_available_providers()
    if kind == "cpu" or (kind == "auto" and not has_cuda):
        return ["CPUExecutionProvider"]
    if kind not in ("cuda", "auto") or (index and not index.isdecimal()):
        raise UsageError(f"device={spec.device}: expected cpu, cuda, cuda:N or auto")
    if not has_cuda:
        raise AdapterError(
            f"device={spec.device} was asked for, but this onnxruntime has no CUDA provider: "
            "pip install onnxruntime-gpu in place of onnxruntime, or use device=cpu"
        )
    return [("CUDAExecutionProvider", {"device_id": index or "0"}), "CPUExecutionProvider"]


def _given_format(spec: AdapterSpec) -> str | None:
    """The option format=, None where it wasn't given."""
    name = spec.option("format")
    if name is not None and name not in _FORMAT_NAMES:
        raise UsageError(
            f"{spec.model}: expected format={'|'.join(_FORMAT_NAMES)}, got {name or 'nothing'}."
            f"{nearest(name, _FORMAT_NAMES)}"
        )
    return name


def _signature(session: Any, path: Path) -> Signature:
    inputs = session.get_inputs()
    return Signature(
        path=path,
        inputs={one.name: list(one.shape) for one in inputs},
        outputs={one.name: list(one.shape) for one in session.get_outputs()},
        takes_bytes=any(len(one.shape) in (3, 4) and "uint8" in one.type for one in inputs),
        metadata=dict(session.get_modelmeta().custom_metadata_map),
    )


def _format(
    given: str | None, signature: Signature, names: tuple[str, ...] | None, spec: AdapterSpec
) -> Format:
    """How to read the file: as it was said, or as the file itself tells."""
    name = given or recognise(signature)
    if name is None:
        raise UsageError(
            f"{spec.model} doesn't say how to read it (outputs {signature.describe()}): expected "
            f"format={'|'.join(_FORMAT_NAMES)}. format=boxes reads finished boxes, scores and "
            "labels, with resize=, mean= and std= for how its input is made"
        )
    if name == _BOXES:
        return FinishedBoxes(len(names or COCO_80), Style.of(spec, signature.takes_bytes))
    for key in _STYLE_OPTIONS:
        if spec.option(key) is not None:
            raise UsageError(f"{key}= describes files of format=boxes; this one is read as {name}")
    if name in EXPORTS:
        if given is not None and name != recognise(signature):
            raise UsageError(
                f"{spec.model} is no export of {name}: its outputs are {signature.describe()}"
            )
        made = EXPORTS[name](signature)
    else:
        made = _FORMATS[name](len(names or COCO_80))
    if signature.takes_bytes and not made.takes_bytes:
        raise UsageError(
            f"{spec.model} takes whole numbers (uint8), which format={name} doesn't make: it "
            "scales pixels. Expected a file that takes float32"
        )
    return made


ADAPTER = AdapterInfo(
    name="onnx",
    summary="an ONNX file: exports of Ultralytics, transformers, RT-DETR, D-FINE, RF-DETR as they "
    "are; YOLOX, NanoDet, CenterNet, FastestDet, or boxes/scores/labels",
    example="yolox=onnx:yolox_nano.onnx,format=yolox",
    licence="unknown",
    load=load,
    weights_files=weights_files,
    options={
        "format": Option(" | ".join(_FORMAT_NAMES), "as the file's names and metadata tell"),
        "classes": classes_option("the file's, if it has some, else COCO's 80"),
        "image_size": Option("input size in pixels, S or WxH", "the file's, if it says one"),
        "resize": Option(
            f"format=boxes: {' | '.join(PLACES)} (centred is a letterbox too, smooth antialiases)",
            "stretch",
        ),
        "colour": Option("format=boxes: rgb | bgr", "rgb"),
        "mean": Option("format=boxes: subtracted, as 123.7/116.3/103.5", "0"),
        "std": Option("format=boxes: divided by, after the mean", "255, or 1 for uint8"),
        "layout": Option(f"format=boxes: {' | '.join(LAYOUTS)}", LAYOUTS[0]),
        "frame": Option(
            f"format=boxes: {' | '.join(FRAMES)}: pixels of the input, or 0..1", FRAMES[0]
        ),
        "first_label": Option("format=boxes: 1 where labels count from 1", "0"),
    },
    extra="onnx",
    models=("a path of an .onnx file",),
    reads=".onnx",
    libraries=("onnxruntime|onnxruntime-gpu",),
    uses_torch=False,
)
