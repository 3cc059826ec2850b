"""A student as the official code of its family stores it."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save

from box_store.places.files import replacing
from student_train.config import as_plain
from student_train.errors import CheckpointError
from student_train.models.official import export_official
from student_train.models.weights_file import OURS
from student_train.runs.run_folder import class_space_to_plain
from student_train.runs.trained import TrainedStudent


def export_checkpoint(student: TrainedStudent, path: Path) -> int:
    """Write the weights of a student; the number of tensors.

    A torch file has them under `model`, as official code loads it, and our settings beside them, so
    that importing it again needs no guess; a `.safetensors` file has the tensors alone.

    Raises:
        CheckpointError: the file cannot be written.
    """
    state = {
        name: value.detach().contiguous() for name, value in export_official(student.model).items()
    }
    ours = {
        "config": as_plain(student.config),
        "classes": class_space_to_plain(student.class_space),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            if path.suffix == ".safetensors":
                # heads that share a tensor are stored once a name there
                file.write(save({name: value.clone() for name, value in state.items()}))
            else:
                torch.save({"model": state, OURS: ours}, file)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"cannot write {path}: {error}") from error
    return len(state)
