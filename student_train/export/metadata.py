"""Notes in an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

PRECISION = "precision"
"""float16 or int8; absent in float32"""


def add_metadata(path: Path, notes: Mapping[str, str]) -> None:
    """Add to a file's metadata, in place of what is there by these names."""
    import onnx

    model = onnx.load(str(path))
    kept = [entry for entry in model.metadata_props if entry.key not in notes]
    told = [(entry.key, entry.value) for entry in kept]
    del model.metadata_props[:]
    for key, value in [*told, *notes.items()]:
        model.metadata_props.add(key=key, value=value)
    onnx.save_model(model, str(path))
