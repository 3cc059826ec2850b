"""Single-file weights: `.safetensors` whose metadata holds the configuration and the category
table, so that one file is enough to predict with. What a run resumes from is in `states`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from box_store.places.files import remove_temporaries, replacing
from student_train.errors import CheckpointError
from student_train.models.class_rows import ClassRows

WEIGHTS_FORMAT = "teach-detr weights 1"


def save_weights(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write a `.safetensors` file with `about` (JSON-able: config, classes) as its metadata.

    Raises:
        CheckpointError: the file cannot be written.
    """
    metadata = {"format": WEIGHTS_FORMAT, "teach_detr": json.dumps(about)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_temporaries(path)
        data = save(_without_shared(tensors), metadata=metadata)
        with replacing(path) as file:
            file.write(data)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"cannot write {path}: {reason}") from error


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors on the CPU, and the metadata that `save_weights` wrote ({} in a foreign file).

    Raises:
        CheckpointError: the file is missing or is not safetensors.
    """
    if not path.is_file():
        raise CheckpointError(f"no weights at {path}")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            about = json.loads((file.metadata() or {}).get("teach_detr", "{}"))
            return {key: file.get_tensor(key) for key in file.keys()}, about  # noqa: SIM118
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error


def _without_shared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU copies; of names that share one tensor (heads of all layers) each gets its
    own.
    """
    return {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}


@dataclass(frozen=True)
class InitReport:
    """What came of loading weights into a model that may differ from their own."""

    loaded: int
    missing: tuple[str, ...]
    """parameters of the model that the file does not have: they keep their initial values"""
    unused: tuple[str, ...]
    """tensors of the file that the model does not have"""
    other_shape: tuple[str, ...]
    """names that both have, with different shapes or of other classes: the model's initial values
    stay
    """
    classes: str = ""
    """what became of the rows of single classes, for people"""
    differing: tuple[str, ...] = ()
    """settings that the weights were trained with and the model has not, each with both values"""
    record: Mapping[str, str] = field(default_factory=dict)
    """what was read, for the run's record: hash, and where it came from"""

    def describe(self) -> str:
        """One line for people."""
        parts = [f"{self.loaded} tensors loaded"]
        for names, words in (
            (self.missing, "not in the file"),
            (self.other_shape, "of another shape or other classes"),
            (self.unused, "of the file not used"),
        ):
            if names:
                shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
                parts.append(f"{len(names)} {words} ({shown})")
        if self.classes:
            parts.append(self.classes)
        if self.differing:
            parts.append(f"they were trained with {'; '.join(self.differing)}")
        if hub := self.record.get("init_hub"):
            parts.append(f"of {hub}")
        return "; ".join(parts)


def load_matching(
    model: nn.Module, tensors: Mapping[str, Tensor], classes: ClassRows | None = None
) -> InitReport:
    """Copy every tensor whose name and shape the model shares (fine-tuning on other classes).

    classes: of the tensors and of the model, whose rows go by name; None: both have the same.

    Raises:
        CheckpointError: not one fits.
    """
    own = model.state_dict()
    if classes is not None:
        fitted = {k: classes.fit(k, v, own[k]) for k, v in tensors.items() if k in own}
    else:
        fitted = {k: v for k, v in tensors.items() if k in own}
    fitting = {k: v for k, v in fitted.items() if v is not None and own[k].shape == v.shape}
    if not fitting:
        raise CheckpointError("none of the tensors fits this model: was it another architecture?")
    model.load_state_dict(fitting, strict=False)
    return InitReport(
        loaded=len(fitting),
        missing=tuple(sorted(set(own) - set(tensors))),
        unused=tuple(sorted(set(tensors) - set(own))),
        other_shape=tuple(sorted(k for k in tensors if k in own and k not in fitting)),
        classes="" if classes is None else classes.describe(),
    )
