"""Who supervises which queries, and how strongly: one list for all sources of boxes.

    truth          every decoder layer and the encoder's proposals
    one_to_many    the truth, each box repeated, on H-DETR's extra queries
    denoising      the truth, on queries that were made from it: pairs are known, not matched
    teacher:NAME   the boxes of a teacher, on the queries of `truth`, weighted by their scores

All of them are the same `Supervision`, and the criterion is a loop over it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from student_train.losses.config import LossConfig, TeacherLossConfig, matched_power
from student_train.models.geometry import iou_and_giou, to_corners
from student_train.models.targets import Targets

Group = Literal["matching", "one_to_many", "denoising"]


@dataclass(frozen=True)
class Supervision:
    """One source of boxes for one group of queries."""

    name: str
    targets: list[Targets | None]
    """per image; None = the source does not know this image, which then adds nothing to the loss"""
    coefficient: float = 1.0
    """weight of all its terms"""
    group: Group = "matching"
    """the queries it supervises"""
    background: float = 1.0
    """weight of the class row of a query without a box"""
    power: float = 0.0
    """weight of a matched query's terms = score ** power"""
    soft: bool = False
    """class target of a matched query: the score, not 1"""
    layers: Literal["all", "last"] = "all"
    """decoder layers it supervises"""
    proposals: Literal["off", "unweighted", "weighted"] = "unweighted"
    """encoder proposals (group `matching` only): weights 1, or `power` and `background` as above"""
    repeat: int = 1
    """times that every box is repeated before matching"""
    released_giou: bool = False
    """1 - weight x GIoU in place of weight x (1 - GIoU)"""
    distil: bool = False
    """its pairs say where layers learn from the last one what it says of edges (D-FINE's DDF)"""
    own_counts: bool = False
    """its losses are divided by the boxes of this rank, not by their mean over the ranks"""
    at_least: str = ""
    """name of a supervision of the same queries: what divides the losses is no less than what
    divides its losses"""

    @property
    def n_boxes(self) -> int:
        """Boxes of the whole batch on this rank, repeats counted."""
        return self.repeat * sum(len(targets) for targets in self.targets if targets is not None)


def supervise(
    config: LossConfig,
    truth: Sequence[Targets],
    teachers: Mapping[str, Sequence[Targets | None]] | None = None,
    epoch: float = 0.0,
) -> list[Supervision]:
    """The list for a batch: ground truth in its three roles, then each teacher.

    A group that the student does not return is passed over by the criterion. Of an image that
    nobody labelled the ground truth says nothing in any role. `epoch` counts from 0
    and may be fractional; it drives the teachers' schedule.
    """
    # an image that nobody labelled is one that this source does not know
    known = [each if each.known else None for each in truth]
    supervisions = []
    if config.truth:
        supervisions += [
            Supervision("truth", known, config.truth, distil=True),
            Supervision(
                "one_to_many",
                known,
                config.truth * config.one_to_many,
                group="one_to_many",
                repeat=config.repeat,
            ),
        ]
    if config.denoising:
        taught = "denoising" in config.teacher.groups
        supervisions.append(
            Supervision(
                "denoising",
                [e if e.known else None for e in denoising_targets(config, truth, teachers)],
                config.denoising,
                group="denoising",
                background=config.denoising_background,
                power=matched_power(config.teacher.matched_weight) if taught else 0.0,
                distil=True,
                own_counts=config.denoising_counts == "own",
            )
        )
    for name, boxes in (teachers or {}).items():
        coefficient = config.teacher.coefficient_of(name, epoch)
        if coefficient:
            supervisions += _teacher(name, boxes, coefficient, truth, config)
    return supervisions


def denoising_targets(
    config: LossConfig,
    truth: Sequence[Targets],
    teachers: Mapping[str, Sequence[Targets | None]] | None = None,
) -> Sequence[Targets]:
    """The boxes that denoising queries are made from: the ground truth, and those of teachers where
    `config.teacher.groups` has denoising. Without a ground truth to learn from, teachers' alone.
    """
    if "denoising" not in config.teacher.groups:
        return truth
    found = []
    for image, mine in enumerate(truth):
        boxes = [mine] if config.truth and mine.known else []
        for others in (teachers or {}).values():
            theirs = others[image]
            if theirs is not None:
                boxes.append(theirs)
        found.append(
            Targets(
                torch.cat([mine.labels[:0], *(each.labels for each in boxes)]),
                torch.cat([mine.boxes[:0], *(each.boxes for each in boxes)]),
                torch.cat([mine.scores[:0], *(each.scores for each in boxes)]),
                known=mine.known or bool(boxes),
            )
        )
    return found


def _teacher(
    name: str,
    boxes: Sequence[Targets | None],
    coefficient: float,
    truth: Sequence[Targets],
    config: LossConfig,
) -> list[Supervision]:
    how = config.teacher
    targets = [_known(each, how) for each in boxes]
    if how.correct_above_iou < 1:
        targets = [
            None if each is None else correct_labels(each, mine, how.correct_above_iou)
            for each, mine in zip(targets, truth, strict=True)
        ]
    matching = Supervision(
        f"teacher:{name}",
        targets,
        coefficient,
        background=how.background,
        power=matched_power(how.matched_weight),
        soft=how.label == "soft",
        layers=how.layers,
        proposals=how.proposals,
        released_giou=how.giou_form == "released",
        at_least="truth" if how.counts == "at_least_truth" else "",
    )
    found = [matching] if "matching" in how.groups else []
    if "one_to_many" in how.groups:
        many = replace(matching, name=f"{matching.name}+one_to_many", group="one_to_many")
        least = "one_to_many" if matching.at_least else ""
        found.append(replace(many, repeat=config.repeat, proposals="off", at_least=least))
    return found


def _known(targets: Targets | None, how: TeacherLossConfig) -> Targets | None:
    """Apply the choice about images that a teacher saw and that have no box left."""
    if targets is None or len(targets) or how.empty == "keep":
        return targets
    return targets if how.empty == "had_boxes" and targets.had_boxes else None


def correct_labels(targets: Targets, truth: Targets, above_iou: float) -> Targets:
    """Give boxes the class of the ground truth box they overlap most, where IoU > `above_iou`."""
    if not len(targets) or not len(truth):
        return targets
    iou, _ = iou_and_giou(to_corners(targets.boxes)[:, None], to_corners(truth.boxes)[None])
    best, index = iou.max(1)
    labels = torch.where(best > above_iou, truth.labels[index], targets.labels)
    return replace(targets, labels=labels)
