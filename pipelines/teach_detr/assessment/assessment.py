"""What the teachers of a store are worth: alone, compared with each other, and together."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from box_store import BoxStore, SelectionSpec
from box_store.calibration.judging import judge
from box_store.calibration.reliability import calibration_error, reliability
from box_store.calibration.score_map import Calibration, need_calibration, read_calibration
from box_store.coco.annotations import CocoData
from box_store.forms.opening import annotations_of
from box_store.identity import seen_by
from box_store.query import example_query, open_store, run_sql
from box_store.selection.choosing import Choice, choose
from student_train.config import ALL_TEACHERS, NO_TEACHERS, TeacherConfig
from student_train.training.teachers import selection_spec
from teach_detr.assessment.scoring import Scorer, TeacherScore, open_scorer

Row = dict[str, Any]

# boxes below it are kept by teachers for AP, and would be noise in what is compared
SURE_SCORE = 0.3
SAME_IOU = 0.5


@dataclass(frozen=True)
class Surety:
    """How far a teacher's scores can be believed, on the given annotations.

    error: expected calibration error, 0..1, of all boxes; sure_error: of those from 0.3 on.
    calibrated_error, sure_calibrated_error: of the calibrated scores, None without a calibration,
    which then is `calibration`.
    """

    error: float | None
    sure_error: float | None
    calibrated_error: float | None = None
    sure_calibrated_error: float | None = None
    calibration: Calibration | None = None

    def to_json(self) -> dict[str, Any]:
        """The errors, and the calibration's figures on the images that its fit did not see."""
        values: dict[str, Any] = {
            "calibration_error": self.error,
            "sure_calibration_error": self.sure_error,
            "calibrated_error": self.calibrated_error,
            "sure_calibrated_error": self.sure_calibrated_error,
        }
        found = self.calibration
        if found is not None:
            held = found.held and asdict(found.held)
            values["calibration"] = found.summary() | {"held_out": held}
        return values


@dataclass(frozen=True)
class FusionGain:
    """What fusing the teachers adds, in AP 0..1, over the images that all of them saw.

    best: name of the best single teacher. gain: AP of the fusion minus its. added: by teacher, AP
    of the fusion of all minus AP of that of the others (of two teachers: minus the other's AP).
    """

    n_images: int
    best: str
    best_ap: float
    fused_ap: float
    added: dict[str, float]

    @property
    def gain(self) -> float:
        """AP of the fusion minus that of the best single teacher."""
        return self.fused_ap - self.best_ap

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self) | {"gain": self.gain}


@dataclass(frozen=True)
class Assessment:
    """The answer of `teach-detr teachers`.

    scores: of every teacher and last, where there are several, of their fusion. surety: by
    teacher. agreement: rows of the example query of that name. fusion: None for a single teacher
    and where no image was seen by all. choices: what training on these annotations would take of
    each teacher. notes: what of the annotations was dropped or repaired.
    """

    scores: list[TeacherScore]
    surety: dict[str, Surety]
    agreement: list[Row]
    fusion: FusionGain | None
    choices: list[Choice] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """All of it, AP of every class included."""
        return {
            "teachers": [
                score.to_json()
                | (self.surety[score.teacher].to_json() if score.teacher in self.surety else {})
                | {"per_class": [dict(vars(row)) for row in score.metrics.per_class]}
                for score in self.scores
            ],
            "agreement": self.agreement,
            "fusion": self.fusion and self.fusion.to_json(),
            "choices": [choice.to_json() for choice in self.choices],
            "notes": self.notes,
        }


def assess(
    store: BoxStore,
    annotations: Path,
    spec: SelectionSpec,
    *,
    max_images: int | None = None,
    seed: int = 0,
) -> Assessment:
    """Everything that `Assessment` holds. AP is computed on at most `max_images` images.

    spec: the teachers (None: all), how their boxes are selected and fused. Needs DuckDB. Raises
    what `open_scorer`, `box_store.select` and `open_store` raise.
    """
    with open_scorer(store, annotations, spec, max_images=max_images, seed=seed) as scorer:
        scores = scorer.each(scorer.names)
        scored = [score.teacher for score in scores]
        gain = None
        if len(scored) > 1:
            fused = scorer.fused(scored)
            gain = _fusion_gain(scorer, scores, fused)
            scores = [*scores, fused]
    coco = annotations_of(annotations)
    return Assessment(
        scores,
        _surety(store, annotations, scored),
        _agreement(store, annotations, scored),
        gain,
        _choices(store, coco, scored, spec.calibrated),
        coco.notes,
    )


def _choices(
    store: BoxStore, coco: CocoData, names: Sequence[str], calibrated: bool
) -> list[Choice]:
    """What `student-train train` would choose where these are the training annotations."""
    store = seen_by(store, coco)
    wanted = TeacherConfig(calibrated=ALL_TEACHERS if calibrated else NO_TEACHERS)
    rule = selection_spec(wanted).rule("")
    return [
        choose(
            store,
            name,
            coco,
            rule,
            calibration=need_calibration(store, name) if calibrated else None,
        )
        for name in names
    ]


def _fusion_gain(
    scorer: Scorer, scores: Sequence[TeacherScore], fused: TeacherScore
) -> FusionGain | None:
    names = [score.teacher for score in scores]
    common = scorer.common_images(names)
    if not common:
        return None
    if any(score.metrics.n_images != len(common) for score in scores):
        scores = scorer.each(names, common)
    if fused.metrics.n_images != len(common):
        fused = scorer.fused(names, common)
    alone = {score.teacher: score.metrics.AP or 0.0 for score in scores}
    best = max(alone, key=lambda name: alone[name])
    together = fused.metrics.AP or 0.0

    def without(name: str) -> float:
        others = [other for other in names if other != name]
        if len(others) == 1:
            return alone[others[0]]
        return scorer.fused(others, common).metrics.AP or 0.0

    return FusionGain(
        n_images=len(common),
        best=best,
        best_ap=alone[best],
        fused_ap=together,
        added={name: together - without(name) for name in names},
    )


def _surety(store: BoxStore, annotations: Path, names: Sequence[str]) -> dict[str, Surety]:
    coco = annotations_of(annotations)
    store = seen_by(store, coco)
    found = {}
    for name in names:
        calibration = read_calibration(store, name)
        judged = judge(store, name, coco, iou=SAME_IOU)
        before = reliability(judged.scores, judged.hits)
        after = (
            reliability(calibration.map.apply(judged.scores), judged.hits) if calibration else []
        )
        found[name] = Surety(
            calibration_error(before),
            calibration_error(before, SURE_SCORE),
            calibration_error(after),
            calibration_error(after, SURE_SCORE),
            calibration,
        )
    return found


def _agreement(store: BoxStore, annotations: Path, names: Sequence[str]) -> list[Row]:
    connection = open_store(store.path, annotations)
    try:
        asked = {"score": SURE_SCORE, "iou": SAME_IOU}
        rows = run_sql(connection, example_query("agreement").sql, asked).to_pylist()
    finally:
        connection.close()
    return [row for row in rows if {row["teacher"], row["other"]} <= {*names}]


def shared_mistakes(store: Path, annotations: Path) -> list[Row]:
    """Rows of the example query of that name: which sure mistakes teachers have in common."""
    connection = open_store(store, annotations)
    try:
        return run_sql(connection, example_query("shared_mistakes").sql).to_pylist()
    finally:
        connection.close()
