"""`log.*`: where a run's numbers go."""

from dataclasses import dataclass
from typing import Literal

from student_train.settings.overrides import Operational


@dataclass(frozen=True)
class LogConfig:
    """Where a run's numbers go besides its own metrics.jsonl."""

    to: Operational[tuple[Literal["tensorboard", "wandb"], ...]] = ()
    """Trackers: tensorboard (RUN/tensorboard) and wandb, each an extra of that name."""
    project: Operational[str] = "teach-detr"
    """Project of Weights & Biases."""
    offline: Operational[bool] = False
    """Weights & Biases: write to RUN/wandb only; `wandb sync` uploads later."""
