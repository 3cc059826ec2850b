"""A student and a schedule for a data set and a machine."""

from dataclasses import dataclass, field

import torch

from box_store.forms.survey import SplitSurvey
from student_train.config import TrainConfig
from student_train.presets import load_preset

# steps that a student of the preset's schedule needs to learn anything; below it, epochs are added
LEAST_STEPS = {"gpu": 6000, "cpu": 1500}
_MOST_EPOCHS = 300
_EVALUATIONS = 12
# queries for the fullest image
_ROOM = 1.5
_GIB = 2**30


@dataclass(frozen=True)
class Machine:
    """What trains: GPUs, and the memory of one of them in bytes."""

    gpus: int
    memory: int

    @classmethod
    def here(cls) -> "Machine":
        """This one."""
        if not torch.cuda.is_available():
            return cls(0, 0)
        return cls(torch.cuda.device_count(), torch.cuda.get_device_properties(0).total_memory)

    def __str__(self) -> str:
        if not self.gpus:
            return "a CPU"
        return f"{self.gpus} GPU{'s' * (self.gpus > 1)} of {self.memory / _GIB:.0f} GiB"


@dataclass
class Proposal:
    """A preset, settings over it, and why, by key."""

    preset: str
    reason: str
    settings: dict[str, object] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    steps: int = 0

    def set(self, key: str, value: object, reason: str) -> None:
        """Choose a setting."""
        self.settings[key] = value
        self.reasons[key] = reason


def propose(train: SplitSurvey, machine: Machine, preset: str | None = None) -> Proposal:
    """What suits the training split. preset: the user's own choice."""
    name, reason = _preset(train, machine) if preset is None else (preset, "asked for")
    found = Proposal(name, reason)
    config = load_preset(name)
    usable = max(1, train.present)
    batch = min(config.batch_size, usable)
    if batch < config.batch_size:
        found.set("batch_size", batch, f"there are {usable} images")
    _queries(found, config, train)
    per_epoch = max(1, usable // batch)
    wanted = LEAST_STEPS["gpu" if machine.gpus else "cpu"]
    epochs = config.epochs
    if per_epoch * epochs < wanted:
        epochs = min(_MOST_EPOCHS, -(-wanted // per_epoch))
        why = f"{per_epoch} steps an epoch; fewer than {wanted} steps in all learn little"
        found.set("epochs", epochs, why)
    found.steps = per_epoch * epochs
    if epochs != config.epochs and config.optim.schedule == "step":
        drops = tuple(max(1, round(at / config.epochs * epochs)) for at in config.optim.drop_epochs)
        found.set("optim.drop_epochs", drops, "at the preset's share of the epochs")
    if config.optim.warmup_steps > found.steps // 10:
        found.set("optim.warmup_steps", found.steps // 10, "a tenth of the steps")
    every = max(1, round(epochs / _EVALUATIONS))
    if every != config.eval_every:
        found.set("eval_every", every, f"about {_EVALUATIONS} evaluations")
    return found


def _preset(train: SplitSurvey, machine: Machine) -> tuple[str, str]:
    if not machine.gpus:
        return "dino-mobilenetv2", "a CPU trains it"
    if train.present >= 20_000 and machine.memory >= 20 * _GIB:
        return "dino-r50-4scale", "many images, and a GPU that holds it"
    return "rtdetrv2-r18", "fast to train, and enough for so many images"


def _queries(found: Proposal, config: TrainConfig, train: SplitSurvey) -> None:
    most = train.objects_per_image.get("100%", 0)
    queries = getattr(config.model, "n_queries", None)
    if isinstance(queries, int) and most * _ROOM > queries:
        wanted = -(-int(most * _ROOM) // 50) * 50
        found.set("model.n_queries", wanted, f"an image has {most} objects")
