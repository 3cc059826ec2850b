"""What `export --half` and `--int8` do to a file that was written and compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from box_store.errors import TeachDetrError
from box_store.patience import Say, patience
from student_train.errors import ExportError
from student_train.export import Exported
from student_train.export.attention import exportable
from student_train.export.check import largest_difference
from student_train.export.files import run_onnx
from student_train.export.half import halve
from student_train.export.int8 import quantise
from student_train.export.program import Detector, Example
from student_train.export.verify import feeds
from student_train.export.verifying import open_validation, photos, scorer
from student_train.runs.trained import TrainedStudent

# of a score, or of a box side in image sides: half a percent of a point of AP on photos
_HALF = 2e-2
_CALIBRATION = 8


def lessened(
    student: TrainedStudent,
    path: Path,
    written: Exported,
    int8: Path | None,
    split: str,
    say: Say,
) -> Exported:
    """Replace a float32 file by one in float16, or in 8 bits where `int8` is a data set.

    Raises:
        ExportError: it detects something else, or loses more AP than it may. The file is taken
            away, so that nobody takes it for what was asked for.
    """
    try:
        if int8 is not None:
            return _in_8_bits(student, path, written, int8, split, say)
        return _in_half(student, path, written, say)
    except TeachDetrError:
        path.unlink(missing_ok=True)
        raise


def _in_half(student: TrainedStudent, path: Path, written: Exported, say: Say) -> Exported:
    batch, _, height, width = (int(side) for side in written.checked[0].split(" x "))
    examples = [Example.make(batch, height, width, seed) for seed in (0, 1)]
    with patience(say, f"looking for what overflows in {path}"):
        n_float = halve(path, [feeds(each) for each in examples])
    say(f"half      {n_float} products stay in float32")
    detector = Detector(exportable(student.model), student.config.model.top_k)
    run = run_onnx(path)
    worst = max(largest_difference(detector, run, each) for each in examples)
    if not worst <= _HALF:
        raise ExportError(
            f"in float16 scores or boxes differ by {worst:.1e} from the student, allowed are "
            f"{_HALF:.0e}: export it in float32, without --half"
        )
    return replace(written, format="ONNX, float16", difference=worst)


def _in_8_bits(
    student: TrainedStudent, path: Path, written: Exported, data: Path, split: str, say: Say
) -> Exported:
    validation = open_validation(student, data, split, None)
    batches = photos(student, validation, _CALIBRATION)
    found = quantise(path, batches, scorer(student, path, validation), say)
    before, taken = found.tried[0], found.taken
    say(
        f"8 bits    {taken.parts}: AP {before.ap:.1f} -> {taken.ap:.1f}, "
        f"{before.ms / taken.ms:.2f} times as fast, {taken.size / before.size:.2f} of the size"
    )
    return replace(written, format=f"ONNX, 8 bits ({taken.parts})")
