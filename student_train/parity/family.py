"""What parity has to know of a family: how to read its official settings, its losses, and the
random numbers of its training step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from student_train.losses import LossConfig
from student_train.models import Prediction, Student, StudentConfig, StudentOutput
from student_train.models.layers.queries import Proposals
from student_train.parity.case import Case, Setup
from student_train.parity.golden import GoldenStudent
from student_train.parity.rows import Row, largest_difference, row, wrong_entries

Settings = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]

LOGITS, BOXES = 1e-3, 1e-4


# official words -> fields of our loss, and of its matching
_LOSS_WORDS = {
    "cls_loss_coef": "class_loss",
    "bbox_loss_coef": "l1_loss",
    "giou_loss_coef": "giou_loss",
    "focal_alpha": "focal_alpha",
    "eos_coef": "no_object",
    "k_one2many": "repeat",
    "lambda_one2many": "one_to_many",
}
_MATCH_WORDS = {
    "set_cost_class": "class_cost",
    "set_cost_bbox": "l1_cost",
    "set_cost_giou": "giou_cost",
}


def _no_noise(golden: GoldenStudent, student: Student) -> None:
    return None


def _no_rows(*_: object) -> list[Row]:
    return []


def _plain_key(stem: str, source: str, layer: str, last: int) -> str:
    return f"{stem}_enc" if layer == "proposals" else stem + ending(layer, last)


def ending(layer: str, last: int) -> str:
    """`_3` of a layer by its number, nothing of the last."""
    return f"_{layer}" if int(layer) < last else ""


@dataclass(frozen=True)
class FamilyParity:
    """How golden sets of one family are compared."""

    config: Callable[[Settings], StudentConfig]
    """our configuration of an official settings table (the whole of NAME.keys.json)"""
    loss: LossConfig | Callable[[Settings], LossConfig]
    """the loss of its training step, as far as the set's own settings (the whole of NAME.keys.json)
    do not say otherwise in the words of most; or a function of them"""
    sets: tuple[str, ...] = ()
    """how names of its golden sets begin, up to the first underscore"""
    criteria: Mapping[str, Callable[[Case], Setup]] = field(default_factory=dict)
    """golden sets of its losses alone, by their names or how these begin, and how a case of each is
    put to our criterion"""
    loss_key: Callable[[str, str, str, int], str] = _plain_key
    """official key of a loss from its stem (`loss_ce`), our source (`denoising`), its layer (a
    number, or `proposals`), and the number of the last layer"""
    noise: Callable[[GoldenStudent, Any], Any] = _no_noise
    """the stored random numbers of the training step, as the student's `noise` argument"""
    denoising: Callable[[GoldenStudent, Any, Any], list[Row]] = _no_rows
    """comparisons of the denoising queries that these random numbers make"""
    proposals: Callable[[str, str, StudentOutput, Arrays], list[Row]] = _no_rows
    """comparisons of the encoder's proposals: name of the set, prefix of its arrays, output, arrays
    """
    evaluation: Callable[[GoldenStudent, Any], list[Row]] = _no_rows
    """further comparisons of a student in eval mode"""
    modules: Mapping[str, str] = field(default_factory=dict)
    """probed modules whose parameters are arranged otherwise here: official name -> ours"""
    rounding: float = 1e-9
    """how far values of float64 gradients may be off, as a share of their parameter's norm: more
    where the official code rounds something to float32 even then"""

    def loss_of(self, settings: Settings) -> LossConfig:
        """The loss of a set's training step."""
        if not isinstance(self.loss, LossConfig):
            return self.loss(settings)
        official = settings["config"]
        said, match = (
            {ours: official[theirs] for theirs, ours in words.items() if theirs in official}
            for words in (_LOSS_WORDS, _MATCH_WORDS)
        )
        if said.get("repeat") == 0:
            # H-DETR's word for having no one-to-many queries
            del said["repeat"]
        return replace(self.loss, **said, match=replace(self.loss.match, **match))


def chosen_proposals(name: str, prefix: str, output: StudentOutput, want: Arrays) -> list[Row]:
    """What the selected tokens propose, and which those are."""
    found = output.proposals
    assert isinstance(found, Proposals)
    rows = compare_prediction(name, f"{prefix}interm/", found, want)
    if not prefix:
        wrong = wrong_entries(found.token_index, want["topk_index"])
        rows.append(row(name, "topk_index", wrong, 0, "wrong entries"))
    return rows


def compare_prediction(name: str, prefix: str, prediction: Prediction, want: Arrays) -> list[Row]:
    """Logits and boxes against the arrays PREFIXlogits and PREFIXboxes, as far as stored."""
    rows = []
    for kind, tensor, tolerance in (
        ("logits", prediction.logits, LOGITS),
        ("boxes", prediction.boxes, BOXES),
    ):
        stored = want.get(prefix + kind)
        if stored is not None:
            # half precision is stored to locate an error, not to judge one
            allowed = 2e-3 if stored.dtype == np.float16 else tolerance
            rows.append(row(name, prefix + kind, largest_difference(tensor, stored), allowed))
    return rows


def compare_layers(name: str, prefix: str, layers: list[Prediction], want: Arrays) -> list[Row]:
    """Decoder layers against the arrays PREFIXaux0/... and, for the last, PREFIXpred_..."""
    stems = [f"aux{i}/" for i in range(len(layers) - 1)] + ["pred_"]
    return [
        each
        for stem, prediction in zip(stems, layers, strict=True)
        for each in compare_prediction(name, f"{prefix}{stem}", prediction, want)
    ]
