"""The files that an ONNX model is made of: itself, and those beside it that hold weights.

Tensors may lie outside (ONNX IR, "External Tensor Data"): the graph names the file, relative to its
own folder. torch.onnx.export does so by default since torch 2.9, as `model.onnx.data`.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from teacher_infer.adapters.loading import existing_file, import_library
from teacher_infer.adapters.onnx_exports import companions
from teacher_infer.adapters.protocol import AdapterError


def files_of(path: Path) -> list[Path]:
    """An ONNX file, the files of weights that its graph refers to, and what says how to read it.

    A file that is no ONNX model is the only one: whoever loads it says what is wrong.

    Raises:
        MissingLibrary: onnx isn't installed.
        AdapterError: a file of weights isn't there, or its name leads out of the model's folder.
    """
    onnx = import_library("onnx", extra="onnx")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception:  # protobuf's own, and what onnx makes of them
        return [path]
    graphs = [model.graph, *model.functions]
    names = {_location(tensor, path) for graph in graphs for tensor in _tensors(graph)} - {""}
    what = f"weights of {path.name}"
    return [
        path,
        *(existing_file(path.parent / name, what) for name in sorted(names)),
        *companions(path, {output.name for output in model.graph.output}),
    ]


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor of a graph or function, those of graphs inside its nodes too."""
    yield from getattr(graph, "initializer", ())
    for sparse in getattr(graph, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: Any) -> Iterable[Any]:
    yield from (attribute.t, *attribute.tensors)
    for graph in (attribute.g, *attribute.graphs):
        yield from _tensors(graph)


def _location(tensor: Any, path: Path) -> str:
    """The file that a tensor lies in, empty for one inside the model."""
    if tensor.data_location != type(tensor).EXTERNAL:
        return ""
    name = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    for kind in (PurePosixPath, PureWindowsPath):
        if not name or kind(name).is_absolute() or kind(name).drive or ".." in kind(name).parts:
            raise AdapterError(
                f"{path}: the tensor {tensor.name!r} lies in a file {name!r}, which leads out of "
                "the model's folder: save the model with its data beside it"
            )
    return name
