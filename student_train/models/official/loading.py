"""Official state dicts into our students and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from student_train.errors import CheckpointError
from student_train.models.class_rows import ClassRows
from student_train.models.official.names import official_names
from student_train.models.student import Student
from student_train.models.weights_file import read_checkpoint

# what official checkpoints hold beside parameters: rebuilt here, or counters of trained batch norms
_BUFFERS = re.compile(
    r"(relative_position_index|attn_mask|num_batches_tracked|n(um)?_points_scale|"
    r"_kp_active_mask)$"
    r"|^decoder\.(anchors|valid_mask)$|^encoder\.pos_embed\d*$"
)

# tables with a row a query
_QUERY_TABLES = ("tgt_embed", "query_embed", "refpoint_embed", "det_token")


@dataclass
class LoadReport:
    """What became of a checkpoint's entries."""

    used: dict[str, str] = field(default_factory=dict)
    """parameters and buffers of the student that were filled -> the official names they came from
    """
    copies: int = 0
    """further official names of those (shared heads are stored once a layer, and again elsewhere)
    """
    missing: list[str] = field(default_factory=list)
    """official names of the student's parameters that the checkpoint lacks"""
    unexpected: list[str] = field(default_factory=list)
    """entries that the student has no place for"""
    misshapen: list[str] = field(default_factory=list)
    """NAME (shape there, shape here) of entries that do not fit, or hold rows of other classes"""
    differing: list[str] = field(default_factory=list)
    """names that should hold one shared tensor and hold several"""
    ignored: list[str] = field(default_factory=list)
    """buffers that the student rebuilds itself"""

    @property
    def loaded(self) -> int:
        """How many parameters and buffers of the student were filled."""
        return len(self.used)

    @property
    def complete(self) -> bool:
        """Whether the checkpoint and the student agree on every parameter."""
        return not (self.missing or self.unexpected or self.misshapen or self.differing)

    def __str__(self) -> str:
        lines = [f"{self.loaded} parameters loaded, {self.copies} further copies of them seen"]
        for text, names in (
            ("missing in the checkpoint", self.missing),
            ("not known to the student", self.unexpected),
            ("of another shape (checkpoint, student)", self.misshapen),
            ("shared here, different there", self.differing),
        ):
            if names:
                more = f" and {len(names) - 5} more" if len(names) > 5 else ""
                lines.append(f"{len(names)} {text}: {', '.join(names[:5])}{more}")
        return "; ".join(lines)


def load_official(
    student: Student,
    state: Mapping[str, Tensor],
    strict: bool = True,
    classes: ClassRows | None = None,
) -> LoadReport:
    """Fill `student` from an official state dict; rows of `classes` go by name.

    `strict` demands that every parameter fits and every entry is used, and changes nothing
    otherwise. Without it what fits is loaded (a checkpoint of other classes for fine-tuning) and
    the report tells the rest. Raises CheckpointError.
    """
    report = LoadReport()
    own = student.state_dict()
    seen: set[str] = set()
    filled: dict[str, Tensor] = {}
    for key, value in own.items():
        if key.endswith("num_batches_tracked"):
            continue
        names = official_names(student, key)
        seen.update(names)
        found = [name for name in names if name in state]
        if not found:
            report.missing.append(names[0])
            continue
        different = [n for n in found[1:] if not _equal(state[n], state[found[0]])]
        entry = state[found[0]]
        if classes is not None:
            named = classes.fit(key, entry, value)
            if named is None:
                report.misshapen.append(f"{found[0]} (of other classes)")
                continue
            entry = named
        if entry.shape != value.shape:
            report.misshapen.append(f"{found[0]} ({tuple(entry.shape)}, {tuple(value.shape)})")
            continue
        if different:
            report.differing += different
            continue
        filled[key] = entry
        report.used[key] = found[0]
        report.copies += len(found) - 1
    for name in state:
        if name not in seen:
            (report.ignored if _BUFFERS.search(name) else report.unexpected).append(name)
    if strict and not report.complete:
        raise CheckpointError(
            f"the checkpoint does not fit the student: {report}.{_advice(report)}"
        )
    student.load_state_dict(filled, strict=False)
    return report


def load_official_file(student: Student, path: Path | str, strict: bool = True) -> LoadReport:
    """`load_official` from a file. Raises CheckpointError."""
    return load_official(student, read_checkpoint(path), strict)


def export_official(student: Student) -> dict[str, Tensor]:
    """The student's state dict under official names, copies of shared heads included."""
    state: dict[str, Tensor] = {}
    for key, value in student.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        for name in official_names(student, key):
            state[name] = value
    for key, buffer in student.named_buffers():
        # what official Swins store though it follows from the window's size
        if key.endswith("relative_position_index"):
            for name in official_names(student, key):
                state[name] = buffer
    return state


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def _advice(report: LoadReport) -> str:
    """The setting that most likely explains a misfit."""
    if report.differing:
        return " This checkpoint has heads of its own for every layer: set model.share_heads=false"
    if _any(report.misshapen, ".patch_embed."):
        return " Set model.backbone to the checkpoint's"
    if any(_any(report.misshapen, table) for table in _QUERY_TABLES):
        return " Set model.n_queries (H-DETR: also model.n_queries_one_to_many) to the checkpoint's"
    if _any(report.misshapen, "class_embed"):
        return " Set model.n_classes to the checkpoint's, or load it without strict"
    tables = (*report.misshapen, *report.unexpected, *report.missing)
    if _any(tables, "backbone.pos_embed") or _any(tables, "mid_pos_embed"):
        return " Set model.table_size and model.mid_table_size to the checkpoint's"
    if _any(report.misshapen, "level_embed"):
        return " Set model.n_levels and model.strides to the checkpoint's"
    if _any(report.unexpected, "backbone.") or _any(report.missing, "backbone."):
        return " Set model.backbone to the checkpoint's"
    return ""


def _any(names: Iterable[str], part: str) -> bool:
    return any(part in name for name in names)
