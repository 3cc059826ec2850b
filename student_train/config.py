"""The whole configuration of a training run, as frozen dataclasses.

The string under a field is its help text. Every leaf has a dotted key (`optim.lr`) and can be set
by a preset (`student_train.presets`), a TOML file (`--config`) or an argument (`key=value`), the
later ones winning.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from student_train.losses.config import LossConfig
from student_train.models import StudentConfig, family_of
from student_train.models.families.dino.model import DinoConfig
from student_train.settings.former import modern, recorded
from student_train.settings.origin import Kind, Origin
from student_train.settings.overrides import (
    Layer,
    Operational,
    Resolved,
    flatten,
    merge,
    settings,
    to_plain,
)
from student_train.settings.sections.data import AugmentConfig, DataConfig
from student_train.settings.sections.log import LogConfig
from student_train.settings.sections.optim import OptimConfig
from student_train.settings.sections.teachers import (
    ALL_TEACHERS,
    NO_TEACHERS,
    RECIPES,
    TeacherConfig,
)

__all__ = [
    "ALL_TEACHERS",
    "NO_TEACHERS",
    "AugmentConfig",
    "DataConfig",
    "LogConfig",
    "OptimConfig",
    "TeacherConfig",
    "TrainConfig",
    "as_plain",
    "changed",
    "from_plain",
    "problems_of",
    "resolve",
    "without_teachers",
]


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines a training run."""

    preset: str = ""
    """Name of the preset that this configuration started from."""
    model: StudentConfig = field(default_factory=DinoConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    teachers: TeacherConfig = field(default_factory=TeacherConfig)
    log: LogConfig = field(default_factory=LogConfig)
    init: Operational[Path | None] = None
    """Weights to start from: run folder, .safetensors, official checkpoint, folder of transformers,
    or hub:ORG/NAME[@REVISION] (`--init`)."""
    epochs: Operational[int] = 12
    """Passes over the training images."""
    steps: Operational[int | None] = None
    """Stop after this many steps, whatever the epochs say."""
    batch_size: int = 16
    """Images per step over all processes."""
    eval_batch_size: Operational[int | None] = None
    """Images at once in evaluation, per process; by default as many as in training."""
    eval_every: Operational[float] = 1
    """Epochs between evaluations; 0 evaluates at the end only."""
    eval_backend: Operational[Literal["pycocotools", "hotcoco", "faster-coco-eval"]] = "pycocotools"
    """What computes COCO metrics: pycocotools (the published numbers), or one that gives the same
    sooner (extra `eval`): hotcoco, the fastest, or faster-coco-eval."""
    save_every: Operational[int] = 500
    """Steps between saved states, besides one before every evaluation and at the end."""
    keep_last: Operational[int] = 2
    """Saved states that are kept; a damaged one gives way to the one before it."""
    log_every: Operational[int] = 50
    """Steps between records in metrics.jsonl (and lines, where the output is not a terminal)."""
    seed: int = 0
    """Seed of the initial weights, the order of images, augmentation and denoising."""
    device: Operational[str] = "auto"
    """auto, cpu, cuda or cuda:N."""
    amp: Literal["auto", "bf16", "off"] = "auto"
    """Mixed precision of the forward pass; auto is bf16 on a GPU that has it, off elsewhere. On a
    CPU that computes in bfloat16 (AVX512-BF16, AMX), bf16 makes large students a half faster."""
    compile: Operational[Literal["off", "backbone", "model"]] = "off"
    """torch.compile of the backbone, or of backbone and transformer (model); best with data.pad_to.
    """
    threads: Operational[int | None] = None
    """Threads of the training process on a CPU; by default what PyTorch chooses."""

    def own_problems(self) -> Iterator[str]:
        """What makes the settings outside of all sections unusable, a sentence each."""
        for key in ("epochs", "steps", "batch_size", "log_every", "save_every", "keep_last"):
            value = getattr(self, key)
            if value is not None and value < 1:
                yield f"{key} must be at least 1, got {value}"
        if not (self.device in ("auto", "cpu") or self.device.startswith("cuda")):
            yield f"device must be auto, cpu, cuda or cuda:N, got {self.device!r}"

    def total_steps(self, steps_per_epoch: int) -> int:
        """Steps of the whole run."""
        whole = self.epochs * steps_per_epoch
        return whole if self.steps is None else min(whole, self.steps)


def problems_of(config: TrainConfig) -> list[str]:
    """What makes a configuration unusable, one sentence each; empty if nothing does."""
    sections = (config.data, config.augment, config.optim, config.teachers)
    return [
        *config.own_problems(),
        *(problem for section in sections for problem in section.problems()),
        *_problems_between(config),
    ]


def _problems_between(config: TrainConfig) -> Iterator[str]:
    """Sections that contradict each other."""
    parts, model = config.optim.accumulate, config.model
    if parts >= 1 and config.batch_size % parts:
        yield (
            f"batch_size {config.batch_size} cannot be split into optim.accumulate={parts} equal "
            "parts"
        )
    if "ema" in config.teachers.online and config.optim.ema is None:
        yield (
            "teachers.online=ema needs the average of the weights: set optim.ema, 0.9997 for "
            "instance"
        )
    if config.loss.form != model.classification:
        yield (
            f"loss.classification is {config.loss.classification}, but the logits of "
            f"{model.family} are read as {model.classification}: set "
            f"loss.classification={model.classification}"
        )
    if wrong := config.augment.wrong_sides(model.side_multiple):
        yield (
            f"augment.squares and augment.eval_square must be multiples of {model.side_multiple} "
            f"for this {model.family}, not {', '.join(map(str, wrong))}"
        )


def resolve(
    preset: TrainConfig,
    file: Mapping[str, Any] | None = None,
    file_name: str = "",
    arguments: Sequence[Layer] = (),
) -> Resolved[TrainConfig]:
    """Preset, then file, then arguments, checked as a whole.

    Every value that differs from the dataclass default carries the origin that set it.

    Raises:
        ConfigError: all problems at once.
    """
    of_preset = Layer(Origin(Kind.PRESET, preset.preset), _differences(preset))
    given = [Layer(each.origin, modern(each.values)) for each in arguments]
    if file:
        given.insert(0, Layer(Origin(Kind.FILE, file_name), modern(flatten(preset, file))))
    start = TrainConfig(model=type(preset.model)())
    recipe = merge(start, [of_preset, *given], problems_of).config.teachers.as_
    named = (
        [Layer(Origin(Kind.RECIPE, f"teachers.as={recipe}"), RECIPES[recipe])]
        if RECIPES[recipe]
        else []
    )
    return merge(start, [of_preset, *named, *given], problems_of)


def changed(resolved: Resolved[TrainConfig], arguments: Sequence[Layer]) -> Resolved[TrainConfig]:
    """A resolved configuration with arguments on top, checked as a whole.

    Raises:
        ConfigError: all problems at once.
    """
    given = [Layer(each.origin, modern(each.values)) for each in arguments]
    merged = merge(resolved.config, given, problems_of)
    return Resolved(merged.config, resolved.origins | merged.origins)


def _differences(config: TrainConfig) -> dict[str, Any]:
    defaults = settings(TrainConfig(model=type(config.model)()))
    return {
        key: setting.value
        for key, setting in settings(config).items()
        if setting.value != defaults[key].value
    }


def as_plain(config: TrainConfig) -> dict[str, Any]:
    """A configuration as JSON-able tables, the student's family by name."""
    table = to_plain(config)
    return {**table, "model": {"family": config.model.family, **table["model"]}}


def from_plain(table: Mapping[str, Any], origin: str) -> TrainConfig:
    """The inverse of `as_plain`, for a configuration read back from JSON.

    Raises:
        ConfigError: a family or a key that this version does not know.
    """
    model = dict(table["model"])
    # configurations written before there were families are DINO's
    start = TrainConfig(model=family_of(model.pop("family", "dino")).config())
    values = recorded(flatten(start, {**table, "model": model}))
    return merge(start, [Layer(Origin(Kind.RECORD, origin), values)]).config


def without_teachers(config: TrainConfig) -> TrainConfig:
    """The baseline of the same configuration: no teacher boxes are read at all."""
    return replace(config, teachers=replace(config.teachers, names=NO_TEACHERS))
