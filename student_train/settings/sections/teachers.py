"""`teachers.*`: which boxes of which teachers a student learns from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from box_store.fuse import FusionConfig
from box_store.selection import TeacherFilter
from student_train.losses.config import PAPER_LOSS, RELEASED_LOSS
from student_train.settings.overrides import Operational

Recipe = Literal["safe", "paper", "released"]
ALL_TEACHERS = ("all",)
NO_TEACHERS = ("none",)


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
    class_floors: dict[str, float] = field(default_factory=dict)
    """The same for single classes: teachers.class_floors.cat=0.4; `teach-detr calibrate` proposes
    some. For one teacher: teachers.each.NAME.class_floors.
    """
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
    watch_every: Operational[int] = 0
    """Every so many steps, see whether each teacher pulls scores where the annotations pull them
    (`agreement` in metrics.jsonl); 0: never.
    """
    combine: Literal["parallel", "fused"] = "parallel"
    """parallel: one loss per teacher, summed (the paper); fused: the boxes of all teachers in one
    set (the released code).
    """
    fusion: FusionConfig = field(default_factory=FusionConfig)

    def problems(self) -> Iterator[str]:
        """What makes these settings unusable, a sentence each."""
        if self.store and self.boxes:
            yield "teachers.store and teachers.boxes exclude each other: give --store or --boxes"
        for key in ("names", "calibrated"):
            named = getattr(self, key)
            if len(named) != 1 and {"all", "none"} & set(named):
                yield f"teachers.{key}: 'all' and 'none' stand alone, got {','.join(named)}"
        if self.boxes and self.calibrated != NO_TEACHERS:
            yield (
                "teachers.calibrated works on a store: a selection file has its scores already "
                "(select `calibrated_score AS score` for calibrated ones)"
            )
        if self.names not in (ALL_TEACHERS, NO_TEACHERS) and not (self.store or self.boxes):
            yield (
                f"teachers {','.join(self.names)} were asked for without boxes: "
                "give --store STORE or --boxes FILE"
            )
        if self.watch_every < 0:
            yield f"teachers.watch_every must be at least 0, got {self.watch_every}"
        if self.online_top_k < 1:
            yield f"teachers.online_top_k must be at least 1, got {self.online_top_k}"


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
