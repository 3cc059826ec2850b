"""The whole configuration of a training run, as frozen dataclasses.

The string under a field is its help text. Every leaf has a dotted key (`optim.lr`) and can be set
by a preset (`student_train.presets`), a TOML file (`--config`) or an argument (`key=value`), the
later ones winning.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from box_store.fuse import FusionConfig
from box_store.selection import TeacherFilter
from student_train.losses.config import PAPER_LOSS, RELEASED_LOSS, LossConfig
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

Recipe = Literal["safe", "paper", "released"]
ALL_TEACHERS = ("all",)
NO_TEACHERS = ("none",)


@dataclass(frozen=True)
class DataConfig:
    """Where the images and their annotations are (COCO layout), and how they are read."""

    root: Operational[Path | None] = None
    """Folder in COCO layout: SPLIT/ with images, annotations/instances_SPLIT.json (`--data`)."""
    train_split: str = "train2017"
    """Name of the split to train on (`--train-split`)."""
    val_split: str = "val2017"
    """Name of the split to evaluate on (`--val-split`); "none" evaluates nothing."""
    train_images: Operational[Path | None] = None
    """Folder of training images, where the layout is another one."""
    train_annotations: Operational[Path | None] = None
    """COCO JSON of the training images, where the layout is another one."""
    val_images: Operational[Path | None] = None
    """Folder of evaluation images, where the layout is another one."""
    val_annotations: Operational[Path | None] = None
    """COCO JSON of the evaluation images, where the layout is another one."""
    class_space: Literal["raw", "contiguous"] = "raw"
    """raw: one logit per category id up to the largest (official COCO weights: 91); contiguous: one
    per category.
    """
    workers: Operational[int] = 4
    """Loader processes per training process; 0 loads in the training process."""
    limit: int | None = None
    """Train on the first this many images only."""
    val_limit: Operational[int | None] = None
    """Evaluate on the first this many images only."""
    aspect_groups: int = 1
    """Groups of like aspect ratio that training batches are made from, for less padding: 2 keeps
    upright and lying images apart; 1 mixes all, as the official code does.
    """
    pad_to: int = 1
    """Heights and widths of training batches are multiples of this many pixels: with 64 or 128,
    few shapes occur, which a compiled model needs.
    """


@dataclass(frozen=True)
class AugmentConfig:
    """DETR's augmentation: flip, then resize, or resize + crop + resize. Lengths in pixels."""

    flip: float = 0.5
    """Probability of a horizontal flip."""
    short_sides: tuple[int, ...] = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    """Lengths of the short side, one drawn per image."""
    long_side: int = 1333
    """Largest length of the long side."""
    crop: float = 0.5
    """Probability of the branch that resizes, crops, and resizes again."""
    crop_resize: tuple[int, ...] = (400, 500, 600)
    """Lengths of the short side before the crop."""
    crop_sides: tuple[int, int] = (384, 600)
    """Smallest and largest side of the crop."""
    photometric: float = 0.0
    """Probability of each change of colours: brightness, contrast, saturation, hue, channel order
    (RT-DETR, D-FINE: 0.5).
    """
    zoom_out: float = 0.0
    """Probability of a larger canvas, up to four times, filled with black (RT-DETR, D-FINE: 0.5).
    """
    iou_crop: float = 0.0
    """Probability of a crop that keeps some box by its IoU (RT-DETR, D-FINE: 0.8)."""
    strong_epochs: int | None = None
    """Epochs after which these three are left out and squares are all eval_square; none: never."""
    squares: tuple[int, ...] = ()
    """Sides of squares that images are squashed to, one drawn per image, in place of short_sides;
    none: the aspect ratio is kept.
    """
    same_square: bool = False
    """Draw one square for all images of a step, which then has no padding."""
    eval_square: int | None = None
    """Side of the square that images are squashed to in evaluation; none: the aspect ratio is kept.
    """
    eval_short_side: int = 800
    """Length of the short side in evaluation."""
    eval_long_side: int = 1333
    """Largest length of the long side in evaluation."""

    @property
    def eval_size(self) -> tuple[int, int]:
        """The largest image of an evaluation, (height, width) if it is a lying one."""
        if self.eval_square is not None:
            return self.eval_square, self.eval_square
        return self.eval_short_side, self.eval_long_side


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with the official parameter groups, clipping, and the learning rate's schedule."""

    lr: float = 1e-4
    """Learning rate of everything but the backbone."""
    backbone_lr: float = 1e-5
    """Learning rate of the backbone; 0 freezes it."""
    offsets_lr_factor: float = 1.0
    """Factor on the learning rate of sampling offsets and reference points (official Deformable
    DETR: 0.1; DINO: 1).
    """
    component_decay: float = 1.0
    """LW-DETR, RF-DETR: factor on the learning rate of the decoder, and squared on the backbone's.
    """
    layer_decay: float = 1.0
    """LW-DETR, RF-DETR: factor on the learning rate from each block of the ViT to the one before.
    """
    weight_decay: float = 1e-4
    """Decoupled weight decay."""
    clip: float = 0.1
    """Largest norm of the gradient of all parameters; 0 does not clip."""
    schedule: Literal["step", "cosine", "constant"] = "step"
    """step: times drop_factor at each of drop_epochs; cosine: to min_lr at the last step."""
    drop_epochs: tuple[float, ...] = (11,)
    """Epochs after which the learning rate drops (may be fractions)."""
    drop_factor: float = 0.1
    """Factor of each drop."""
    min_lr: float = 0.0
    """Learning rate at the end of the cosine."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from 0."""
    no_decay: tuple[str, ...] = ()
    """Regular expressions: a parameter is not decayed where one of them is found in its official
    name, beside those that the student exempts (RT-DETR and D-FINE have such lists).
    """
    accumulate: int = 1
    """Parts that each batch is split into to save memory; gradients are averaged over the parts."""
    ema: float | None = None
    """Decay of an average of the weights, which is evaluated and saved as best (DINO: 0.9997)."""
    ema_ramp: float | None = None
    """Steps t0 over which that decay rises from 0, as 1 - e^(-t / t0) (RF-DETR: 100); none: as
    (1 + t) / (10 + t).
    """


@dataclass(frozen=True)
class TeacherConfig:
    """Which teacher boxes supervise the student, read from a box store or from a selection file."""

    store: Operational[Path | None] = None
    """Box store (`--store`)."""
    boxes: Operational[Path | None] = None
    """Selection file in place of a store, as `teach-detr select` writes it (`--boxes`)."""
    names: tuple[str, ...] = ALL_TEACHERS
    """Teachers by name; "all" of the store, or "none" (`--teachers`)."""
    as_: Recipe = "safe"
    """Whose way of using them: safe, this project's; paper, a loss of its own for each, whatever
    boxes it has; released, one set as the code of the paper's authors fuses and weighs it. It sets
    what nothing else sets.
    """
    choose: Literal["auto", "none"] = "auto"
    """auto: settings of each teacher that nobody gave are chosen by the training annotations, and
    teachers whose boxes do not fit these are left out; none takes boxes as the settings say.
    """
    keep: tuple[str, ...] = ()
    """Teachers that `teachers.choose` does not leave out, whatever it finds."""
    score_floor: float = 0.05
    """Boxes below this score are left out."""
    top_k: int = 100
    """Best boxes kept per image and teacher."""
    nms_iou: float | Literal["off"] | None = 0.5
    """Class-wise NMS per teacher at this IoU; off (or none) keeps repeats."""
    each: dict[str, TeacherFilter] = field(default_factory=dict)
    """The same for single teachers: teachers.each.NAME.score_floor=0.1, and so top_k, nms_iou,
    temperature (above 1 tempers an overconfident teacher's scores), calibrated.
    """
    online: tuple[str, ...] = ()
    """Teachers in the training process, which see the augmented images: "ema", the average of the
    student's own weights (needs optim.ema), and folders of earlier runs.
    """
    online_start: float = 0.0
    """Epoch at which online teachers begin."""
    online_score_floor: float = 0.3
    """Boxes of online teachers below this score are left out."""
    online_top_k: int = 100
    """Best boxes kept per image and online teacher."""
    calibrated: tuple[str, ...] = NO_TEACHERS
    """Teachers, by name or "all", whose scores are those of their calibration in the store, which
    `teach-detr calibrate` makes (`--calibrated`); score floors are then floors of these.
    """
    licences: tuple[str, ...] = ()
    """Only teachers whose recorded licence is like one of these (`MIT,Apache*`); empty: any."""
    deny_licences: tuple[str, ...] = ()
    """Teachers whose recorded licence is like one of these (`AGPL*`) are left out."""
    missing: Literal["skip", "error"] = "skip"
    """Images that a teacher never saw: skip has no term of that teacher there; error stops."""
    combine: Literal["parallel", "fused"] = "parallel"
    """parallel: one loss per teacher, summed (the paper); fused: the boxes of all teachers in one
    set (the released code).
    """
    fusion: FusionConfig = field(default_factory=FusionConfig)


@dataclass(frozen=True)
class LogConfig:
    """Where a run's numbers go besides its own metrics.jsonl."""

    to: Operational[tuple[Literal["tensorboard", "wandb"], ...]] = ()
    """Trackers: tensorboard (RUN/tensorboard) and wandb, each an extra of that name."""
    project: Operational[str] = "teach-detr"
    """Project of Weights & Biases."""
    offline: Operational[bool] = False
    """Weights & Biases: write to RUN/wandb only; `wandb sync` uploads later."""


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
    """Weights to start from: run folder, .safetensors, or official checkpoint (`--init`)."""
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
    """Mixed precision of the forward pass; auto is bf16 on a GPU that has it, off elsewhere."""
    compile: Operational[Literal["off", "backbone", "model"]] = "off"
    """torch.compile of the backbone, or of backbone and transformer (model); best with data.pad_to.
    """
    threads: Operational[int | None] = None
    """Threads of the training process on a CPU; by default what PyTorch chooses."""

    def total_steps(self, steps_per_epoch: int) -> int:
        """Steps of the whole run."""
        whole = self.epochs * steps_per_epoch
        return whole if self.steps is None else min(whole, self.steps)


def _recipe(loss: Mapping[str, Any], **teachers: Any) -> dict[str, Any]:
    return {
        "teachers.choose": "none",
        "teachers.nms_iou": "off",
        **{f"teachers.{key}": value for key, value in teachers.items()},
        **{f"loss.teacher.{key}": value for key, value in loss.items()},
    }


RELEASED_FUSION = {"fusion.method": "nms", "fusion.iou": 0.2, "fusion.quota": True}
# what each value of `teachers.as` sets, where nothing else does
RECIPES: Mapping[Recipe, Mapping[str, Any]] = {
    "safe": {},
    "paper": _recipe(PAPER_LOSS, combine="parallel"),
    "released": _recipe(RELEASED_LOSS, combine="fused", **RELEASED_FUSION),
}


def problems_of(config: TrainConfig) -> list[str]:
    """What makes a configuration unusable, one sentence each; empty if nothing does."""
    found: list[str] = []

    def require(holds: bool, sentence: str) -> None:
        if not holds:
            found.append(sentence)

    optim, augment, teachers = config.optim, config.augment, config.teachers
    require(config.epochs >= 1, f"epochs must be at least 1, got {config.epochs}")
    require(
        config.steps is None or config.steps >= 1, f"steps must be at least 1, got {config.steps}"
    )
    require(config.batch_size >= 1, f"batch_size must be at least 1, got {config.batch_size}")
    require(optim.accumulate >= 1, f"optim.accumulate must be at least 1, got {optim.accumulate}")
    require(
        optim.accumulate < 1 or config.batch_size % optim.accumulate == 0,
        f"batch_size {config.batch_size} cannot be split into "
        f"optim.accumulate={optim.accumulate} equal parts",
    )
    require(optim.lr > 0, f"optim.lr must be above 0, got {optim.lr}")
    require(
        optim.backbone_lr >= 0, f"optim.backbone_lr must not be negative, got {optim.backbone_lr}"
    )
    require(optim.clip >= 0, f"optim.clip must not be negative, got {optim.clip}")
    require(optim.ema is None or 0 < optim.ema < 1, f"optim.ema must lie in 0..1, got {optim.ema}")
    for key in ("component_decay", "layer_decay"):
        value = getattr(optim, key)
        require(0 < value <= 1, f"optim.{key} must lie in 0..1, above 0, got {value}")
    require(
        optim.ema_ramp is None or optim.ema_ramp > 0,
        f"optim.ema_ramp must be above 0, got {optim.ema_ramp}",
    )
    require(config.log_every >= 1, f"log_every must be at least 1, got {config.log_every}")
    require(config.save_every >= 1, f"save_every must be at least 1, got {config.save_every}")
    require(config.keep_last >= 1, f"keep_last must be at least 1, got {config.keep_last}")
    require(
        config.data.workers >= 0, f"data.workers must not be negative, got {config.data.workers}"
    )
    for key in ("aspect_groups", "pad_to"):
        value = getattr(config.data, key)
        require(value >= 1, f"data.{key} must be at least 1, got {value}")
    for key in ("limit", "val_limit"):
        value = getattr(config.data, key)
        require(value is None or value >= 1, f"data.{key} must be at least 1, got {value}")
    require(
        augment.strong_epochs is None or augment.strong_epochs >= 0,
        f"augment.strong_epochs must not be negative, got {augment.strong_epochs}",
    )
    for pattern in optim.no_decay:
        require(is_pattern(pattern), f"optim.no_decay: {pattern!r} is no regular expression")
    require(bool(augment.short_sides), "augment.short_sides must name at least one length")
    require(
        not augment.same_square or bool(augment.squares),
        "augment.same_square draws one of augment.squares, and there is none",
    )
    found.extend(_sides(config))
    for key in ("flip", "crop", "photometric", "zoom_out", "iou_crop"):
        value = getattr(augment, key)
        require(0 <= value <= 1, f"augment.{key} is a probability, got {value}")
    low, high = augment.crop_sides
    require(low <= high, f"augment.crop_sides must be smallest,largest, got {low},{high}")
    require(
        not (teachers.store and teachers.boxes),
        "teachers.store and teachers.boxes exclude each other: give --store or --boxes",
    )
    for key in ("names", "calibrated"):
        named = getattr(teachers, key)
        require(
            len(named) == 1 or not {"all", "none"} & set(named),
            f"teachers.{key}: 'all' and 'none' stand alone, got {','.join(named)}",
        )
    require(
        not teachers.boxes or teachers.calibrated == NO_TEACHERS,
        "teachers.calibrated works on a store: a selection file has its scores already (select "
        "`calibrated_score AS score` for calibrated ones)",
    )
    require(
        teachers.names in (ALL_TEACHERS, NO_TEACHERS) or bool(teachers.store or teachers.boxes),
        f"teachers {','.join(teachers.names)} were asked for without boxes: "
        "give --store STORE or --boxes FILE",
    )
    require(
        "ema" not in teachers.online or optim.ema is not None,
        "teachers.online=ema needs the average of the weights: set optim.ema, 0.9997 for instance",
    )
    require(
        teachers.online_top_k >= 1,
        f"teachers.online_top_k must be at least 1, got {teachers.online_top_k}",
    )
    form = config.model.classification
    require(
        config.loss.form == form,
        f"loss.classification is {config.loss.classification}, but the logits of "
        f"{config.model.family} are read as {form}: set loss.classification={form}",
    )
    require(config.device in ("auto", "cpu") or config.device.startswith("cuda"), _device(config))
    return found


def _sides(config: TrainConfig) -> list[str]:
    """What is wrong with the sides of images for a student that takes multiples alone."""
    multiple, augment = config.model.side_multiple, config.augment
    wrong = [side for side in augment.squares if side < 1 or side % multiple]
    square = augment.eval_square
    if square is not None and (square < 1 or square % multiple):
        wrong.append(square)
    if not wrong:
        return []
    return [
        f"augment.squares and augment.eval_square must be multiples of {multiple} for this "
        f"{config.model.family}, not {', '.join(map(str, dict.fromkeys(wrong)))}"
    ]


def is_pattern(text: str) -> bool:
    """Whether a text is a regular expression."""
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def _device(config: TrainConfig) -> str:
    return f"device must be auto, cpu, cuda or cuda:N, got {config.device!r}"


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
    named = [Layer(Origin(Kind.RECIPE, recipe), RECIPES[recipe])] if RECIPES[recipe] else []
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
