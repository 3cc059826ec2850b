"""A student as a folder that transformers loads by `AutoModelForObjectDetection`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from student_train.errors import ExportError
from student_train.export.card import CARD
from student_train.export.image_processor import image_settings
from student_train.models.hub.classes import id2label
from student_train.models.hub.folder import SAFE
from student_train.models.hub.layout import hub_layout, layouts, to_disk
from student_train.runs.trained import TrainedStudent


@dataclass(frozen=True)
class ExportedFolder:
    """What was written."""

    path: Path
    tensors: int
    note: str
    """what will differ from here, for people; empty if nothing does"""

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {**vars(self), "path": str(self.path), "format": "transformers"}


def export_folder(student: TrainedStudent, folder: Path, card: str | None = None) -> ExportedFolder:
    """Write `config.json`, `preprocessor_config.json`, the weights, and `card` as `README.md`.

    Decoder layers that evaluation does not use are left out.

    Raises:
        ExportError: transformers lacks the family, or the folder cannot be written.
        CheckpointError: transformers lacks something that this student does.
    """
    config = student.config.model
    layout = hub_layout(config.family)
    if layout is None:
        raise ExportError(
            f"transformers has no {config.family}: folders are written for {', '.join(layouts())}"
        )
    labels = id2label(student.class_space)
    settings = {
        "model_type": layout.model_types[0],
        "architectures": [layout.architecture],
        **layout.config(config),
        "id2label": labels,
        "label2id": {name: int(index) for index, name in labels.items()},
    }
    state = to_disk(layout, student.model)
    used = getattr(config, "eval_layers", None)
    if used is not None:
        state = {name: value for name, value in state.items() if not layout.beyond(name, used)}
    image, note = image_settings(layout.processor, layout.square, student.config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "config.json", settings)
        _write(folder / "preprocessor_config.json", image)
        if card is not None:
            (folder / CARD).write_text(card, encoding="utf-8")
        save_file(state, folder / SAFE, metadata={"format": "pt"})
    except (OSError, SafetensorError) as error:
        raise ExportError(f"cannot write {folder}: {error}") from error
    return ExportedFolder(folder, len(state), note)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
