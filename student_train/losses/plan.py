"""What a step's supervisions ask of a student's output: stacks of layers, and the sets of boxes
that each stack is compared with.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from box_store.errors import UsageError
from student_train.losses.supervision import Supervision
from student_train.models.output import EdgeDistributions, Prediction, StudentOutput, stack
from student_train.models.targets import Targets

LAYERS, PROPOSALS, INITIAL = "decoder layer", "encoder proposals", "initial prediction"
# names of the parts of stacks that are one layer by nature
_LABELS = {PROPOSALS: "proposals", INITIAL: "initial", f"denoising {INITIAL}": "initial"}


TERMS = ("class", "box", "giou")
EDGE_TERMS = ("fgl", "ddf")
"""of layers whose boxes come from distributions: see `edge_terms.py`"""


@dataclass(frozen=True)
class Task:
    """A supervision applied to one stack: one set of boxes."""

    supervision: Supervision
    first: int = 0
    """the layer of the stack it starts at"""
    weighted: bool = True
    """False: weights and background are 1 whatever the supervision says"""
    repeat: int = 1
    """times that every box occurs"""
    copies: int = 1
    """noised copies of the boxes that share the normaliser"""

    def layers(self, term: str, layers: int) -> range:
        """Those of a stack of `layers` on which a term compares something: distillation needs one
        that comes later.
        """
        if term != "ddf":
            return range(self.first, layers)
        return range(self.first, layers - 1 if self.supervision.distil else self.first)

    @property
    def counts(self) -> NDArray[np.int64]:
        """[B], boxes of every image, repeats counted; 0 where the source does not know it."""
        sizes = [0 if each is None else len(each) for each in self.supervision.targets]
        return np.array(sizes, np.int64) * self.repeat


@dataclass(frozen=True)
class Stack:
    """Layers of equal shape, and all that supervises them."""

    name: str
    """also in error messages: `decoder layer`"""
    prediction: Prediction
    """[L, B, Q, ...]"""
    tasks: tuple[Task, ...]
    known: bool = False
    """pairs are known (denoising), nothing is matched"""
    classless: bool = False
    """logit 0 says that there is an object, of whatever class"""
    groups: int = 1
    """equal parts of the queries, each of which is matched with all boxes"""
    edges: EdgeDistributions | None = None
    """the distributions that the boxes of its layers come from, if they do"""

    @property
    def terms(self) -> tuple[str, ...]:
        """What its losses are made of."""
        return TERMS if self.edges is None else (*TERMS, *EDGE_TERMS)

    def label(self, layer: int) -> str:
        """What a layer is called in the names of the losses' parts."""
        return _LABELS.get(self.name, str(layer))

    @property
    def least(self) -> list[int]:
        """Per task, the place of the one whose normaliser is the least of its own; itself where
        there is none: it asks for none, or no such source supervises these queries.
        """
        at = {task.supervision.name: place for place, task in enumerate(self.tasks)}
        return [at.get(task.supervision.at_least, place) for place, task in enumerate(self.tasks)]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(L, B, Q)."""
        layers, images, queries, _ = self.prediction.boxes.shape
        return layers, images, queries


def plan(output: StudentOutput, supervisions: Sequence[Supervision]) -> list[Stack]:
    """The stacks of an output that something supervises; groups that it lacks are left out.

    Raises UsageError if nothing supervises the student.
    """
    found: list[Stack] = []
    matching = [each for each in supervisions if each.group == "matching"]
    if matching:
        last = len(output.layers) - 1
        tasks = tuple(Task(s, last if s.layers == "last" else 0) for s in matching)
        groups = output.n_groups
        stacked = stack(output.layers)
        found.append(Stack(LAYERS, stacked, tasks, groups=groups, edges=output.edges))
    first = tuple(Task(each) for each in matching if each.layers == "all")
    if output.initial and first:
        found.append(Stack(INITIAL, stack([output.initial]), first))
    proposing = [each for each in matching if each.proposals != "off"]
    if output.proposals and proposing:
        tasks = tuple(Task(s, weighted=s.proposals == "weighted") for s in proposing)
        classless = output.proposal_labels == "binary"
        proposals = stack([output.proposals])
        found.append(Stack(PROPOSALS, proposals, tasks, False, classless, output.n_groups))
    many = [each for each in supervisions if each.group == "one_to_many"]
    if output.one_to_many and many:
        last = len(output.one_to_many) - 1
        tasks = tuple(Task(s, last if s.layers == "last" else 0, repeat=s.repeat) for s in many)
        found.append(Stack("one-to-many layer", stack(output.one_to_many), tasks))
    noisy = [each for each in supervisions if each.group == "denoising"]
    if output.denoising and noisy:
        tasks = tuple(Task(s, copies=output.denoising.n_groups) for s in noisy)
        layers, edges = stack(output.denoising.layers), output.denoising.edges
        found.append(Stack("denoising layer", layers, tasks, known=True, edges=edges))
        if output.denoising.initial:
            initial = stack([output.denoising.initial])
            found.append(Stack(f"denoising {INITIAL}", initial, tasks, known=True))
    if not found:
        raise UsageError(
            "nothing supervises the student: expected ground truth or a teacher with a coefficient "
            "above 0, got none; raise loss.truth or loss.teacher.coefficient"
        )
    return found


class BoxTable:
    """The boxes of all sources and images of a step in one table, a row a box.

    Sources that are used twice (ground truth on decoder and denoising queries) have one row a box.
    The last row is padding: a box that no loss counts.
    """

    def __init__(self, stacks: Sequence[Stack], like: Tensor):
        """`like` lends device and dtype."""
        self._starts: dict[int, int] = {}
        members: list[Targets] = []
        size = 0
        for task in (task for each in stacks for task in each.tasks):
            for targets in task.supervision.targets:
                if targets is not None and id(targets) not in self._starts:
                    self._starts[id(targets)] = size
                    members.append(targets)
                    size += len(targets)
        self.padding = size
        pad = torch.zeros(1, dtype=torch.long, device=like.device)
        self.labels = torch.cat([*(each.labels for each in members), pad])  # [N + 1]
        pad_box, pad_score = like.new_full((1, 4), 0.5), like.new_zeros(1)
        self.boxes = torch.cat([*(each.boxes for each in members), pad_box]).to(like.dtype)
        self.scores = torch.cat([*(each.scores for each in members), pad_score]).to(like.dtype)

    def rows(self, task: Task) -> list[NDArray[np.int64]]:
        """Per image, the rows of a task's boxes in order."""
        found = []
        for targets in task.supervision.targets:
            count = 0 if targets is None else len(targets)
            start = self.start(targets)
            found.append(np.tile(np.arange(start, start + count, dtype=np.int64), task.repeat))
        return found

    def start(self, targets: Targets | None) -> int:
        """The row of an image's first box."""
        return 0 if targets is None else self._starts[id(targets)]
