"""Trained students as files for other programs: ONNX and torch.export, each checked after writing.

`export_student` does it all: the same weights, deformable attention written out in plain
operations, batch and image size free where the student allows it.
"""

import json
import platform
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from box_store.patience import Say, patience
from student_train.errors import ExportError
from student_train.export.attention import Sampler
from student_train.export.check import Run, largest_difference
from student_train.export.files import (
    require_onnx,
    run_onnx,
    run_torch,
    write_onnx,
    write_torch,
)
from student_train.export.program import (
    Detector,
    Dynamic,
    Example,
    Program,
    trace,
    why_of_one_size,
)
from student_train.runs.exported import CARD, file_card
from student_train.runs.trained import TrainedStudent

__all__ = ["Exported", "export_student"]


@dataclass(frozen=True)
class Exported:
    """One file and how far its detections lie from the student's."""

    path: Path
    format: str
    dynamic: Dynamic
    note: str
    checked: tuple[str, ...] = ()
    """the shapes of images that it was run on"""
    difference: float | None = None
    """largest difference of a score, or of a box side in image sides; None: not compared"""

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {**vars(self), "path": str(self.path), "checked": list(self.checked)}


def export_student(
    student: TrainedStudent,
    size: tuple[int, int],
    *,
    onnx: Path | None = None,
    torch_export: Path | None = None,
    dynamic: Dynamic = "size",
    sampler: Sampler = "gather",
    tolerance: float = 1e-3,
    notes: Mapping[str, str] | None = None,
    compare_torch: bool = True,
    say: Say = lambda text: None,
) -> list[Exported]:
    """Write the files that are asked for and compare each with the student.

    Args:
        size: height and width in pixels of the batch to trace with.
        sampler: how deformable attention reads maps.
        tolerance: largest difference allowed, see `Exported.difference`.
        notes: for the files' metadata, beside what decides how they are used.
        compare_torch: whether the `.pt2` is compared too; reading it takes longer than all the
            rest, and who runs it in a process of its own need not do so twice.
        say: hears what is being done.

    Raises:
        ExportError: the student cannot be exported, a package is missing, or a file that was
            written detects something else.
    """
    if onnx is not None:
        require_onnx()
    model = student.model.cpu().eval()
    multiple = student.config.model.side_multiple
    check_size(size, multiple)
    if dynamic == "size" and multiple > 1 and not why_of_one_size(model):
        # a map of one cell a window would be taken for one that always has one
        size = (max(size[0], 2 * multiple), max(size[1], 2 * multiple))
    example = Example.make(1 if dynamic == "none" else 2, *size)
    parts = 1 + 2 * (onnx is not None) + (1 + compare_torch) * (torch_export is not None)
    stage = _Stages(say, parts)
    with stage(f"tracing the student on {example.describe()}"):
        program = trace(model, student.config.model.top_k, example, dynamic, sampler)
    about = describe(student, program, example, sampler) | dict(notes or {})
    examples = _examples(program, example, multiple)
    original = Detector(model, student.config.model.top_k)
    done: list[tuple[str, Path, Callable[[Path], Run] | None]] = []
    if torch_export is not None:
        with stage(f"writing {torch_export}"):
            write_torch(program, torch_export, about)
        done.append(("torch.export", torch_export, run_torch if compare_torch else None))
    if onnx is not None:
        with stage(f"writing {onnx}"):
            write_onnx(program, example, onnx, about)
        done.append(("ONNX", onnx, run_onnx))
    checked = []
    for kind, path, read in done:
        if read is None:
            checked.append(Exported(path, kind, program.dynamic, program.note))
            continue
        with stage(f"comparing {path} with the student"):
            run = read(path)
            checked.append(_checked(kind, path, run, original, program, examples, tolerance))
    return checked


def check_size(size: tuple[int, int], multiple: int) -> None:
    """Refuse what the family cannot look at.

    Raises:
        ExportError: a side is no multiple of what the family needs.
    """
    if any(side % multiple for side in size):
        raise ExportError(
            f"images of {size[0]} x {size[1]} px: this family needs sides that are multiples of "
            f"{multiple} px, {max(multiple, size[0] // multiple * multiple)} x "
            f"{max(multiple, size[1] // multiple * multiple)} for example"
        )


class _Stages:
    """Says which of so many stages is being done, and for how long already."""

    def __init__(self, say: Say, total: int) -> None:
        self._say = say
        self._total = total
        self._at = 0

    def __call__(self, what: str) -> AbstractContextManager[None]:
        self._at += 1
        return patience(self._say, f"{self._at} of {self._total}: {what}")


def describe(
    student: TrainedStudent, program: Program, example: Example, sampler: Sampler
) -> dict[str, str]:
    """What a user of the file has to know, as text by key; `teach_detr` is for programs."""
    pixels = student.config.model.pixels
    return {
        "producer": "teach-detr",
        "student": student.config.model.family,
        "dynamic": program.dynamic,
        "shape": json.dumps(_free_shape(program, example)),
        "sampler": sampler,
        "side_multiple": str(student.config.model.side_multiple),
        "classes": json.dumps(student.class_space.names),
        "images": "RGB, float32, (x / 255 - mean) / std, top left, zero padding; mask True there",
        "mean": json.dumps(pixels.mean),
        "std": json.dumps(pixels.deviation),
        "boxes": "x1, y1, x2, y2 in 0..1 of each image without its padding",
        "torch": torch.__version__,
        "python": platform.python_version(),
        CARD: json.dumps(file_card(student)),
    }


def _free_shape(program: Program, example: Example) -> list[int | None]:
    """That of the images, None where it is free."""
    batch, _, height, width = example.images.shape
    free = {"none": (batch, height, width), "batch": (None, height, width)}
    sides = free.get(program.dynamic, (None, None, None))
    return [sides[0], 3, *sides[1:]]


def _examples(program: Program, example: Example, multiple: int) -> list[Example]:
    """The traced batch, and other ones as far as the program is free."""
    batch, _, height, width = example.images.shape
    others = {"none": [], "batch": [(batch + 1, height, width), (1, height, width)]}
    more = (37, 41) if multiple == 1 else (multiple, 2 * multiple)
    others["size"] = [(batch + 1, height + more[0], width), (1, height, width + more[1])]
    return [
        example,
        *(Example.make(*shape, seed=1 + at) for at, shape in enumerate(others[program.dynamic])),
    ]


def _checked(
    kind: str,
    path: Path,
    run: Run,
    original: Detector,
    program: Program,
    examples: list[Example],
    tolerance: float,
) -> Exported:
    worst = max(largest_difference(original, run, example) for example in examples)
    if not worst <= tolerance:
        raise ExportError(
            f"{path} was written, but it detects something else than the student: scores or boxes "
            f"differ by {worst:.1e}, allowed are {tolerance:.0e}. Do not use it"
        )
    shapes = tuple(example.describe() for example in examples)
    return Exported(path, kind, program.dynamic, program.note, shapes, worst)
