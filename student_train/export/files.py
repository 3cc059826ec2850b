"""Traced students as files: ONNX and torch.export's own format, and running them again."""

import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from box_store.places.durable import temporary_beside
from student_train.errors import ExportError
from student_train.export.check import Run
from student_train.export.folding import fold_weights
from student_train.export.lowering import lowered
from student_train.export.program import Example, Program, quiet
from student_train.runs.exported import INPUTS, OUTPUTS, open_session

OPSET = 18
"""TensorRT 10, OpenVINO, onnxruntime since 1.14 and coremltools' successors read it"""
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def require_onnx() -> None:
    """Refuse at once what would fail after minutes of tracing.

    Raises:
        ExportError: a package is missing; the extra is named.
    """
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            f"ONNX export needs {', '.join(missing)}, which is not installed: "
            "pip install 'teach-detr[onnx]'"
        )


def write_onnx(program: Program, example: Example, path: Path, about: Mapping[str, str]) -> None:
    """Write an ONNX file; `about` becomes its metadata.

    Raises:
        ExportError: an operation has no ONNX counterpart, or the file cannot be written.
    """
    import onnx

    try:
        model = _converted(program, example)
    except Exception as error:
        # the exporter wraps what went wrong in pages of advice
        while error.__cause__ is not None:
            error = error.__cause__
        words = str(error).strip().splitlines() or [repr(error)]
        raise ExportError(f"the student has no ONNX form: {words[0]}") from None
    _name_dimensions(model)
    fold_weights(model)
    for node in model.graph.node:
        # where the sources lay when it was traced
        del node.metadata_props[:]
    for key, value in about.items():
        model.metadata_props.add(key=key, value=value)
    _write(path, lambda target: onnx.save_model(model, str(target)))


def _converted(program: Program, example: Example) -> Any:
    """The ONNX model of a program: by the short way, else by the exporter's own."""

    def convert(traced: torch.export.ExportedProgram) -> Any:
        with quiet(), _silent():
            made = torch.onnx.export(
                traced,
                (example.images, example.mask),
                dynamo=True,
                input_names=list(INPUTS),
                output_names=list(OUTPUTS),
                opset_version=OPSET,
                optimize=False,
                verbose=False,
            )
            assert made is not None
            _shorten(made.model)
        return made.model_proto

    short = lowered(program.traced)
    if short is not None:
        # an operation that is not known here comes as whatever error the exporter ends in
        with suppress(Exception):
            return convert(short)
    return convert(program.traced)


def _shorten(model: Any) -> None:
    """Drop what is computed twice, or not used; then onnxscript's own rules, in place.

    The rules look at every node, and two of three nodes go before: without that they take longer
    than all the rest of an export.
    """
    from onnx_ir.passes import common
    from onnxscript import optimizer

    for _ in range(2):
        common.RemoveUnusedNodesPass()(model)
        common.CommonSubexpressionEliminationPass()(model)
        optimizer.fold_constants(model)
    optimizer.optimize(model, num_iterations=1)


def _name_dimensions(model: Any) -> None:
    """Call the free dimensions what they are; the tracer calls them s31."""
    images, mask = (value.type.tensor_type.shape.dim for value in model.graph.input[:2])
    free = ((images[0], "batch"), (images[2], "height"), (images[3], "width"))
    same = ((mask[1], "height"), (mask[2], "width"))
    names = {dim.dim_param: name for dim, name in (*free, *same) if dim.dim_param}
    for value in (*model.graph.input, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in names:
                dimension.dim_param = names[dimension.dim_param]
    for value in model.graph.output:
        count = value.type.tensor_type.shape.dim[1]
        if count.dim_param:
            # a formula of the image's size: fewer where an image has fewer cells than detections
            count.dim_param = "detections"
    # what was computed from the old names is worth less than an unambiguous file
    del model.graph.value_info[:]


def run_onnx(path: Path) -> Run:
    """The file in onnxruntime on the CPU."""
    session = open_session(path)

    def run(images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fed = dict(zip(INPUTS, (images.numpy(), mask.numpy()), strict=True))
        scores, labels, boxes = (torch.from_numpy(x) for x in session.run(list(OUTPUTS), fed))
        return scores, labels, boxes

    return run


def write_torch(program: Program, path: Path, about: Mapping[str, str]) -> None:
    """Write torch.export's archive; `about` is in its extra file `teach_detr.json`.

    Raises:
        ExportError: the file cannot be written.
    """
    extra = {"teach_detr.json": json.dumps(dict(about))}

    def save(target: Path) -> None:
        with target.open("wb") as file, quiet():
            torch.export.save(program.traced, file, extra_files=extra)

    _write(path, save)


def run_torch(path: Path) -> Run:
    """The file, read again."""
    with quiet(), path.open("rb") as file:
        return torch.export.load(file).module()  # type: ignore[return-value]


def _write(path: Path, save: Callable[[Path], object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_beside(path) as (_, temporary):
            save(temporary)
        temporary.replace(path)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def _silent() -> Iterator[None]:
    """Drop what the exporter prints while it works."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        yield
