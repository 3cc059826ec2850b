"""A student as a folder that transformers loads by `AutoModelForObjectDetection`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from student_train.errors import ExportError
from student_train.models.hub.classes import id2label
from student_train.models.hub.folder import SAFE
from student_train.models.hub.layout import hub_layout, layouts, to_disk
from student_train.runs.trained import TrainedStudent


def export_folder(student: TrainedStudent, folder: Path) -> int:
    """Write `config.json`, `preprocessor_config.json` and the weights; the number of tensors.

    Decoder layers that evaluation does not use are left out.

    Raises:
        ExportError: transformers lacks the family, or what this student does; or the folder cannot
            be written.
    """
    config = student.config.model
    layout = hub_layout(config.family)
    if layout is None or layout.config is None:
        known = ", ".join(name for name, each in layouts().items() if each.config is not None)
        raise ExportError(f"no folder of transformers is written for {config.family}: {known}")
    labels = id2label(student.class_space)
    settings = {
        "model_type": layout.model_types[0],
        "architectures": [layout.architecture],
        **layout.config(config),
        "id2label": labels,
        "label2id": {name: int(index) for index, name in labels.items()},
    }
    state = to_disk(layout, student.model)
    kept = int(settings.get("decoder_layers", 0))
    state = {name: value for name, value in state.items() if not layout.beyond(name, kept)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "config.json", settings)
        if layout.image is not None:
            _write(folder / "preprocessor_config.json", layout.image(student.config))
        save_file(state, folder / SAFE, metadata={"format": "pt"})
    except (OSError, SafetensorError) as error:
        raise ExportError(f"cannot write {folder}: {error}") from error
    return len(state)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
