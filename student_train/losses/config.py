"""Every choice that the losses leave open, with the released values as defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

from box_store.errors import UsageError, nearest
from student_train.models.output import Form

Classification = Literal["focal", "softmax", "vfl", "mal", "ia_bce"]
"""what queries pay for the classes they say: see `class_terms.py`"""


def classifications(form: Form) -> list[Classification]:
    """Those that read logits of a form."""
    return [each for each in get_args(Classification) if (each == "softmax") == (form == "softmax")]


@dataclass(frozen=True)
class MatchCost:
    """Weights of the bipartite matching's cost (DETR, Carion et al., ECCV 2020)."""

    class_cost: float = 2.0
    """of the class term: focal (or minus the probability, for `softmax`)"""
    l1_cost: float = 5.0
    """of the L1 distance between (cx, cy, w, h)"""
    giou_cost: float = 2.0
    """of minus the generalised IoU"""
    alpha: float | None = None
    """balance of the focal class term; none: `loss.focal_alpha`"""
    gamma: float | None = None
    """exponent of the focal class term; none: `loss.focal_gamma`"""
    log_eps: float = 1e-8
    """added to probabilities before their logarithm, which decides between very sure queries: 1e-8
    in all official codes but RF-DETR's, where it is 0"""


# settings of `TeacherLossConfig` with which it is the loss of the paper, and that of the code that
# its authors released, which differ in what a loss is called only
PAPER_LOSS: Mapping[str, Any] = {"proposals": "unweighted", "counts": "own"}
RELEASED_LOSS: Mapping[str, Any] = {**PAPER_LOSS, "giou_form": "released"}


@dataclass(frozen=True)
class TeacherLossConfig:
    """How boxes of teachers supervise the student (Teach-DETR, Huang et al., arXiv 2211.11953)."""

    coefficient: float = 1.0
    """lambda: weight of every teacher's loss, beside the ground truth's 1"""
    coefficients: Mapping[str, float] = field(default_factory=dict)
    """lambda of single teachers by name, in place of `coefficient`"""
    schedule: str = "constant"
    """lambda over time: constant | decay:E (linearly to 0 at epoch E) | stop:E (0 from E on)"""
    matched_weight: str = "score"
    """weight of a matched query's terms: score | one | power:P (score to the power P)"""
    background: float = 0.5
    """weight of the class row of a query that no box of the teacher is matched to"""
    label: Literal["hard", "soft"] = "hard"
    """class target of a matched query: hard = 1, soft = the score"""
    correct_above_iou: float = 1.0
    """a teacher box that overlaps a ground truth box by more takes its class; 1 = never"""
    layers: Literal["all", "last"] = "all"
    """decoder layers that teachers supervise"""
    proposals: Literal["off", "unweighted", "weighted"] = "weighted"
    """encoder proposals against teacher boxes: not at all, with all weights 1 (the released code:
    a box of score 0.05 counts as an annotated one), or weighted as in the decoder. Classes count if
    they count in the loss on ground truth"""
    counts: Literal["at_least_truth", "own"] = "at_least_truth"
    """what divides a teacher's loss: its boxes in the step or the annotated ones, whichever are
    more, so that none of its boxes counts more than an annotated one (at_least_truth); or its own
    boxes (own: the paper and the released code), with which few boxes outweigh the annotations.
    The same where there is no ground truth"""
    groups: tuple[Literal["matching", "one_to_many", "denoising"], ...] = ("matching",)
    """query groups that teachers supervise; one_to_many (H-DETR) and denoising (DN-DETR, DINO) need
    a student that has such queries. With denoising, noised boxes of teachers are restored beside
    those of the ground truth, weighted as `matched_weight` says, whatever lambda is"""
    empty: Literal["had_boxes", "keep", "none"] = "had_boxes"
    """an image that the teacher saw, without a box left: push all queries to background if it had
    boxes before it was cropped (had_boxes), always (keep), or never (none)"""
    giou_form: Literal["weighted", "released"] = "weighted"
    """weighted: s(1 - GIoU); released: 1 - s GIoU, as the released code logs it. Same gradient"""

    def __post_init__(self) -> None:
        check_choice("layers", self.layers, ("all", "last"))
        check_choice("label", self.label, ("hard", "soft"))
        check_choice("proposals", self.proposals, ("off", "unweighted", "weighted"))
        check_choice("counts", self.counts, ("at_least_truth", "own"))
        check_choice("empty", self.empty, ("had_boxes", "keep", "none"))
        check_choice("giou_form", self.giou_form, ("weighted", "released"))
        for group in self.groups:
            check_choice("groups", group, ("matching", "one_to_many", "denoising"))
        check_weight("coefficient", self.coefficient)
        check_weight("background", self.background)
        for name, value in self.coefficients.items():
            check_weight(f"coefficients.{name}", value)
        matched_power(self.matched_weight)
        schedule_factor(self.schedule, 0.0)

    @classmethod
    def released(cls, **values: Any) -> Self:
        """What the released code does (LeonHLJ/Teach-DETR), with other values over it."""
        return cls(**{**RELEASED_LOSS, **values})

    def coefficient_of(self, teacher: str, epoch: float) -> float:
        """Lambda of a teacher at a time, in epochs since the start (fractions count)."""
        return self.coefficients.get(teacher, self.coefficient) * schedule_factor(
            self.schedule, epoch
        )


@dataclass(frozen=True)
class LossConfig:
    """The student's loss. Defaults are DINO's (IDEA-Research/DINO, `main` criterion)."""

    classification: Classification = "focal"
    """focal: sigmoid per class; vfl: the same, towards the IoU of the box (RT-DETR, D-FINE); mal:
    towards a power of it (DEIM); ia_bce: towards IoU and probability (LW-DETR, RF-DETR); softmax:
    cross-entropy with a no-object class at the end (YOLOS)"""
    class_loss: float = 1.0
    """coefficient of the class loss: 1 in DINO, DAB and DN, 2 in the Deformable family"""
    l1_loss: float = 5.0
    """coefficient of the L1 box loss"""
    giou_loss: float = 2.0
    """coefficient of the generalised IoU loss"""
    fgl_loss: float = 0.15
    """D-FINE: coefficient of the loss on the distributions of edges"""
    ddf_loss: float = 1.5
    """D-FINE: coefficient of what layers learn from the last one's distributions"""
    pairs: Literal["own", "union"] = "own"
    """which queries answer for a box on a layer: those matched there (own), or, for all losses but
    that of the classes, those matched on any layer (union: D-FINE's global optimal set)"""
    match: MatchCost = field(default_factory=MatchCost)
    """weights of the matching cost"""
    focal_alpha: float = 0.25
    """balance of the focal loss (Lin et al., ICCV 2017)"""
    focal_gamma: float = 2.0
    """exponent of the focal loss; the matching cost uses both unless `match` says other ones"""
    quality_alpha: float | None = None
    """alpha of a class loss that asks for the IoU; none: its own, 0.75 for vfl, 1 for mal,
    0.25 for ia_bce"""
    quality_gamma: float | None = None
    """gamma of a class loss that asks for the IoU; none: its own, 2 for vfl and ia_bce, 1.5 for
    mal"""
    no_object: float = 0.1
    """softmax only: class weight of no-object"""
    giou_eps: float = 1e-6
    """added to the denominators of IoU and GIoU: 1e-6 in DINO, DN and DAB, 0 elsewhere"""
    truth: float = 1.0
    """coefficient of the ground truth; 0 (with denoising=0 too) trains from teachers alone"""
    one_to_many: float = 1.0
    """coefficient of the one-to-many queries' loss on ground truth (H-DETR)"""
    repeat: int = 6
    """times each box is repeated for the one-to-many queries"""
    groups: Literal["mean", "sum"] = "mean"
    """LW-DETR, RF-DETR: the losses of the groups of queries, each of which is matched with all
    boxes, are averaged (official) or summed (RF-DETR's option `sum_group_losses`)"""
    denoising: float = 1.0
    """coefficient of the denoising queries' loss"""
    denoising_background: float = 1.0
    """class weight of slots that restore no box: 1 in DINO (negatives), 0 in DN-DETR"""
    denoising_counts: Literal["mean", "own"] = "mean"
    """what divides the denoising queries' loss in a distributed run: the boxes a rank on average
    (DINO), or those of this rank alone (DN-DETR)"""
    teacher: TeacherLossConfig = field(default_factory=TeacherLossConfig)
    """how teachers supervise"""

    def __post_init__(self) -> None:
        check_choice("classification", self.classification, get_args(Classification))
        check_choice("groups", self.groups, ("mean", "sum"))
        check_choice("denoising_counts", self.denoising_counts, ("mean", "own"))
        check_choice("pairs", self.pairs, ("own", "union"))
        for name in ("class_loss", "l1_loss", "giou_loss", "fgl_loss", "ddf_loss"):
            check_weight(name, getattr(self, name))
        for name in ("truth", "one_to_many", "denoising"):
            check_weight(name, getattr(self, name))
        if self.repeat < 1:
            raise UsageError(f"repeat: expected at least 1, got {self.repeat}")

    @property
    def form(self) -> Form:
        """How it reads logits."""
        return "softmax" if self.classification == "softmax" else "focal"

    @property
    def match_alpha_gamma(self) -> tuple[float, float]:
        """Alpha and gamma of the matching's focal class cost."""
        alpha, gamma = self.match.alpha, self.match.gamma
        return (
            self.focal_alpha if alpha is None else alpha,
            self.focal_gamma if gamma is None else gamma,
        )

    def quality(self, alpha: float, gamma: float) -> tuple[float, float]:
        """Alpha and gamma of a class loss that asks for the IoU, from those that are its own."""
        mine = self.quality_alpha, self.quality_gamma
        return (alpha if mine[0] is None else mine[0], gamma if mine[1] is None else mine[1])


def matched_power(rule: str) -> float:
    """The exponent p of a `matched_weight` rule: weight = score ** p.

    Raises UsageError for anything but `score`, `one` and `power:P`.
    """
    if rule == "score":
        return 1.0
    if rule == "one":
        return 0.0
    return _number_after("power", rule, "matched_weight", "score, one or power:P with P >= 0")


def schedule_factor(schedule: str, epoch: float) -> float:
    """The factor on lambda at a time in epochs; raises UsageError for an unknown schedule."""
    if schedule == "constant":
        return 1.0
    expected = "constant, decay:E or stop:E with an epoch E"
    if schedule.startswith("decay"):
        end = _number_after("decay", schedule, "schedule", expected)
        return max(0.0, 1.0 - epoch / end) if end else 0.0
    return float(epoch < _number_after("stop", schedule, "schedule", expected))


def _number_after(word: str, text: str, option: str, expected: str) -> float:
    head, _, tail = text.partition(":")
    try:
        number = float(tail) if head == word else -1.0
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise UsageError(f"{option}: expected {expected}, got {text!r}")
    return number


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise UsageError, with the nearest choice, if `value` is none of them."""
    if value not in choices:
        expected = ", ".join(choices)
        raise UsageError(f"{option}: expected {expected}, got {value!r}.{nearest(value, choices)}")


def check_weight(option: str, value: float) -> None:
    """Raise UsageError unless the value is a finite number from 0."""
    if not 0 <= value < float("inf"):
        raise UsageError(f"{option}: expected at least 0, got {value}")
