"""What a run is about to do, before its first step: for people, and for programs."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from box_store.selection.choosing import Choice
from detr_kernels import explain
from student_train.config import TrainConfig
from student_train.machine.runtime import Runtime
from student_train.runs.checkpoint import InitReport
from student_train.runs.run_folder import RunFolder
from student_train.settings.overrides import Resolved, settings, to_plain
from student_train.settings.telling import describe_origins
from student_train.training.engine import Trainer
from student_train.training.inputs import Inputs


def random_start(config: TrainConfig) -> list[str]:
    """A sentence where nothing of the student was trained before: few mean that."""
    model = config.model
    if config.init is not None or model.backbone_weights is not None:
        return []
    frozen = " and batch norms frozen as they are" if getattr(model, "norm", "") == "frozen" else ""
    return [
        f"the backbone {model.backbone} begins with random weights{frozen}, which takes far more "
        "images and epochs. Give model.backbone_weights=timm (downloads ImageNet's) or =FILE, or "
        "--init RUN"
    ]


def state_gib(trainer: Trainer) -> float:
    """Size of a saved state: weights, two moments of what is trained, and the average."""
    parameters = list(trainer.model.parameters())
    trained = sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)
    weights = sum(t.numel() * t.element_size() for t in trainer.model.state_dict().values())
    return (weights * (1 if trainer.average is None else 2) + 2 * trained) / 2**30


def space_on_disk(root: Path, trainer: Trainer) -> list[str]:
    """A sentence where the disk of a run is too small for the states that it will keep."""
    needed = state_gib(trainer) * (trainer.config.keep_last + 1)
    there = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free / 2**30
    if free >= needed:
        return []
    return [
        f"{free:.1f} GiB are free at {there}, and saving needs {needed:.1f} "
        f"({trainer.config.keep_last} states and the one being written): "
        "free some, or lower keep_last"
    ]


@dataclass(frozen=True)
class DryRun:
    """What a run would do; the same as the lines on the screen, for programs."""

    run: str
    would: str
    device: str
    settings: dict[str, dict[str, Any]]
    images: int
    boxes: int
    val_images: int | None
    teachers: list[str]
    parameters: int
    trained_parameters: int
    steps: int
    steps_per_epoch: int
    notes: list[str]
    warnings: list[str]
    choices: list[dict[str, Any]]
    """what was chosen for each teacher, and why"""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"dry_run": True, **asdict(self)}


def dry_run_of(
    resolved: Resolved[TrainConfig],
    folder: RunFolder,
    runtime: Runtime,
    inputs: Inputs,
    trainer: Trainer,
    resuming: bool,
    warnings: Sequence[str],
    choices: Sequence[Choice],
) -> DryRun:
    """What such a run would do."""
    parameters = list(trainer.model.parameters())
    values = settings(resolved.config)
    return DryRun(
        run=str(folder.place),
        would="resume" if resuming else "start",
        device=runtime.describe(),
        settings={
            key: {"value": to_plain(values[key].value), "origin": str(origin)}
            for key, origin in resolved.origins.items()
            if key in values
        },
        images=len(inputs.train),
        boxes=inputs.train.n_boxes,
        val_images=None if inputs.validation is None else len(inputs.validation.dataset),
        teachers=[*inputs.train.teachers, *trainer.online],
        parameters=sum(p.numel() for p in parameters),
        trained_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        steps=trainer.total_steps,
        steps_per_epoch=trainer.steps_per_epoch,
        notes=list(inputs.notes),
        warnings=list(warnings),
        choices=[choice.to_json() for choice in choices],
    )


def describe(
    resolved: Resolved[TrainConfig],
    folder: RunFolder,
    runtime: Runtime,
    inputs: Inputs,
    trainer: Trainer,
    report: InitReport | None,
) -> list[str]:
    """What is about to run, a line each: where every setting came from included."""
    config = resolved.config
    parameters = list(trainer.model.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    lines = [
        f"run       {folder.place}",
        f"device    {runtime.describe()}",
        f"attention {explain(runtime.device)}",
        *describe_origins(resolved),
        f"data      {len(inputs.train)} training images with {inputs.train.n_boxes} boxes, "
        f"{len(inputs.class_space.categories)} categories ({inputs.class_space.kind}, "
        f"{config.model.n_classes} logits)",
    ]
    if inputs.validation is not None:
        lines.append(
            f"evaluate  {len(inputs.validation.dataset)} images of {inputs.validation.source.label}"
        )
    lines += [f"note      {note}" for note in inputs.notes]
    lines += [f"teacher   {name}: looks at the augmented images" for name in trainer.online]
    if not inputs.train.teachers and not trainer.online:
        lines.append("teachers  none: the baseline")
    lines.append(
        f"model     {sum(p.numel() for p in parameters):,} parameters, {trained:,} of them trained"
    )
    if report is not None:
        lines.append(f"weights   {config.init}: {report.describe()}")
    size = state_gib(trainer)
    gradients = trained * 4 / 2**30
    lines.append(
        f"memory    {size + gradients:.2f} GiB of weights, gradients and optimiser a process, and "
        "the activations (`student-train bench` measures them); "
        f"on disk {config.keep_last} states of {size:.2f} GiB"
    )
    lines.append(
        f"schedule  {trainer.total_steps} steps of {config.batch_size} images, "
        f"{trainer.steps_per_epoch} an epoch"
    )
    return lines
