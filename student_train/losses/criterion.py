"""The whole training loss of a step: a loop over supervisions, each the same set loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor

from box_store.errors import UsageError
from student_train.losses.config import LossConfig
from student_train.losses.matcher import (
    Match,
    PendingMatches,
    Problem,
    split_by_image,
    start_matching,
)
from student_train.losses.set_loss import ClassTerm, WeightedBoxes, class_term, set_loss
from student_train.losses.supervision import Supervision, supervise
from student_train.models.output import Denoising, Prediction, StudentOutput, stack
from student_train.models.targets import Targets

TERMS = ("class", "box", "giou")
PROPOSALS = "encoder proposals"


@dataclass(frozen=True)
class Losses:
    """The loss of a step and what it is made of."""

    total: Tensor
    """0-d, with gradient"""
    names: tuple[str, ...]
    """of the parts, SOURCE/TERM/LAYER: `truth/class/5`, `teacher:yolox/giou/proposals`"""
    values: Tensor
    """[parts], detached. All coefficients are applied: the parts add up to the total"""

    @property
    def parts(self) -> dict[str, Tensor]:
        """Every part by its name."""
        return dict(zip(self.names, self.values.unbind(), strict=True))

    def folded(self) -> dict[str, float]:
        """For people: see `fold`. Copies to the host once."""
        return fold(self.names, self.values)


def fold(names: Sequence[str], values: Tensor) -> dict[str, float]:
    """Parts summed up for the progress line; also for parts averaged over steps or ranks.

    `class`, `box` and `giou` are the ground truth's; `denoising` and every `teacher:NAME` are sums
    of their three terms; together they make `total`.
    """
    numbers: dict[str, float] = dict.fromkeys(("total", *TERMS), 0.0)
    for name, value in zip(names, values.tolist(), strict=True):
        source, term, _ = name.rsplit("/", 2)
        source = source.removesuffix("+one_to_many")
        key = term if source in ("truth", "one_to_many") else source
        numbers["total"] += value
        numbers[key] = numbers.get(key, 0.0) + value
    return numbers


@dataclass(frozen=True)
class Task:
    """A supervision applied to one stack of layers."""

    supervision: Supervision
    stack: str
    """what the stack is called, also in error messages"""
    prediction: Prediction
    """the whole stack, [L, B, Q, ...]"""
    targets: list[Targets | None]
    """per image, as this stack sees them: repeated, or stripped of their classes"""
    first: int = 0
    """the layer of the stack it starts at"""
    weighted: bool = True
    """False: weights and background are 1 whatever the supervision says"""
    copies: int = 1
    """noised copies of the targets that share the normaliser"""


class Criterion:
    """Turns a student's output and a list of supervisions into a loss.

    Holds no parameters and no state. Computes in float32 (or float64, if the predictions are)
    whatever autocast says. All ranks of a distributed run must pass supervisions of the same names.
    """

    def __init__(self, config: LossConfig | None = None):
        self.config = config or LossConfig()

    def supervise(
        self,
        truth: Sequence[Targets],
        teachers: Mapping[str, Sequence[Targets | None]] | None = None,
        epoch: float = 0.0,
    ) -> list[Supervision]:
        """The list for a batch, by this criterion's config: see `supervision.supervise`."""
        return supervise(self.config, truth, teachers, epoch)

    def __call__(self, output: StudentOutput, supervisions: Sequence[Supervision]) -> Losses:
        """The loss of one batch.

        Raises NonFinitePrediction if the student returned NaN or infinity, UsageError if nothing
        supervises it.
        """
        device = output.last.boxes.device
        with torch.autocast(device.type, enabled=False):
            tasks = plan(output, supervisions)
            pending, matched = self._start_matching(tasks)
            counts = mean_counts([each.n_boxes for each in supervisions], device)
            normalisers = dict(zip((s.name for s in supervisions), counts.unbind(), strict=True))
            terms = {task.stack: class_term(task.prediction.logits, self.config) for task in tasks}

            # known pairs first: the device works on them while the costs travel to the host
            found = {
                index: self._loss(task, terms, known_pairs(task, output.denoising), normalisers)
                for index, task in enumerate(tasks)
                if output.denoising is not None and index not in matched
            }
            for index, match in zip(matched, pending.result(), strict=True):
                found[index] = self._loss(tasks[index], terms, match, normalisers)

            losses = [found[index] for index in sorted(found)]
            values = torch.cat([values for _, values in losses])
            names = tuple(name for names, _ in losses for name in names)
            return Losses(values.sum(), names, values.detach())

    def matches(
        self, output: StudentOutput, supervisions: Sequence[Supervision]
    ) -> dict[str, list[list[tuple[Tensor, Tensor]]]]:
        """Who is matched with whom, to look at a run: per `SOURCE/STACK`, per layer and image,
        (query indices, target indices of that image).
        """
        tasks = plan(output, supervisions)
        pending, matched = self._start_matching(tasks)
        return {
            f"{tasks[index].supervision.name}/{tasks[index].stack}": split_by_image(
                match, tasks[index].targets
            )
            for index, match in zip(matched, pending.result(), strict=True)
        }

    def _start_matching(self, tasks: list[Task]) -> tuple[PendingMatches, list[int]]:
        """Begin all matchings of a step; also the indices of the tasks they are for, in order."""
        stacks: dict[str, list[int]] = {}
        for index, task in enumerate(tasks):
            stacks.setdefault(task.stack, []).append(index)
        problems: list[Problem] = []
        matched: list[int] = []
        for name, members in stacks.items():
            # denoising is a problem without boxes: its predictions are only looked at for NaN
            mine = [index for index in members if tasks[index].supervision.group != "denoising"]
            box_sets = [tasks[index].targets for index in mine]
            first_layers = [tasks[index].first for index in mine]
            problems.append(Problem(name, tasks[members[0]].prediction, box_sets, first_layers))
            matched += mine
        return start_matching(problems, self.config), matched

    def _loss(
        self,
        task: Task,
        terms: dict[str, ClassTerm],
        match: Match,
        normalisers: dict[str, Tensor],
    ) -> tuple[list[str], Tensor]:
        """The parts of one task, all coefficients applied, with their names."""
        supervision, config = task.supervision, self.config
        boxes = concatenate(task.targets, task.prediction.boxes)
        weighted = WeightedBoxes(
            boxes.labels,
            boxes.boxes,
            weights=boxes.scores ** (supervision.power if task.weighted else 0.0),
            values=boxes.scores if supervision.soft else torch.ones_like(boxes.scores),
        )
        losses = set_loss(
            terms[task.stack],
            task.prediction.boxes,
            weighted,
            match,
            normalisers[supervision.name] * task.copies,
            first=task.first,
            background=supervision.background if task.weighted else 1.0,
            covered=supervision.covered(task.prediction.boxes.device),
            giou_eps=config.giou_eps,
            released_giou=supervision.released_giou,
        )
        weights = (config.class_loss, config.l1_loss, config.giou_loss)
        values = [
            losses[term] * (weight * supervision.coefficient)
            for term, weight in zip(TERMS, weights, strict=True)
        ]
        layers = [str(layer) for layer in range(task.first, len(task.prediction.boxes))]
        names = ["proposals"] if task.stack == PROPOSALS else layers
        parts = [f"{supervision.name}/{term}/{name}" for term in TERMS for name in names]
        return parts, torch.cat(values)


def plan(output: StudentOutput, supervisions: Sequence[Supervision]) -> list[Task]:
    """What each supervision means for this output; groups that the student lacks are left out."""
    layers = stack(output.layers)
    many = stack(output.one_to_many) if output.one_to_many else None
    proposals = stack([output.proposals]) if output.proposals else None
    denoising = stack(output.denoising.layers) if output.denoising else None
    tasks: list[Task] = []
    for each in supervisions:
        if each.group == "matching":
            first = len(output.layers) - 1 if each.layers == "last" else 0
            tasks.append(Task(each, "decoder layer", layers, each.targets, first))
            if proposals and each.proposals != "off":
                targets = each.targets
                if output.proposal_labels == "binary":
                    targets = [None if t is None else without_classes(t) for t in targets]
                weighted = each.proposals == "weighted"
                tasks.append(Task(each, PROPOSALS, proposals, targets, weighted=weighted))
        elif each.group == "one_to_many" and many:
            first = len(many.boxes) - 1 if each.layers == "last" else 0
            targets = [None if t is None else t.repeat(each.repeat) for t in each.targets]
            tasks.append(Task(each, "one-to-many layer", many, targets, first))
        elif each.group == "denoising" and denoising and output.denoising:
            copies = output.denoising.n_groups
            tasks.append(Task(each, "denoising layer", denoising, each.targets, copies=copies))
    if not tasks:
        raise UsageError(
            "nothing supervises the student: expected ground truth or a teacher with a coefficient "
            "above 0, got none; raise loss.truth or loss.teacher.coefficient"
        )
    return tasks


def without_classes(targets: Targets) -> Targets:
    """For proposals whose logit 0 says that there is an object, of whatever class."""
    return replace(targets, labels=torch.zeros_like(targets.labels))


def known_pairs(task: Task, denoising: Denoising) -> Match:
    """The pairs of the denoising queries, the same on every layer."""
    sizes = [0 if each is None else len(each) for each in task.targets]
    before = torch.tensor([0, *sizes]).cumsum(0)
    before = before.to(denoising.image_index.device, non_blocking=True)
    target = before[denoising.image_index] + denoising.target_index
    layers = len(task.prediction.boxes)
    return Match(
        denoising.image_index,
        denoising.slot_index.expand(layers, -1),
        target.expand(layers, -1),
    )


def concatenate(targets: Sequence[Targets | None], like: Tensor) -> Targets:
    """The boxes of all images in turn; `like` lends dtype and device if there are none."""
    known = [each for each in targets if each is not None]
    none = torch.zeros(0, dtype=torch.long, device=like.device)
    return Targets(
        torch.cat([none, *(each.labels for each in known)]),
        torch.cat([like.new_zeros(0, 4), *(each.boxes for each in known)]),
        torch.cat([like.new_zeros(0), *(each.scores for each in known)]),
    )


def mean_counts(counts: Sequence[int], device: torch.device) -> Tensor:
    """Box counts averaged over the ranks, at least 1 each: the normalisers, float [N]."""
    # built on the host: a tensor made on the device from a list would wait for the device
    mean = torch.tensor(counts, dtype=torch.float32).to(device, non_blocking=True)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(mean)
        mean /= dist.get_world_size()
    return mean.clamp(min=1)
