"""What `export --half` and `--int8` do to a file that was written and compared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from box_store.errors import TeachDetrError, UsageError
from box_store.patience import Say
from student_train.data.splits import Validation
from student_train.export import Exported
from student_train.export.half import half_candidates
from student_train.export.int8 import int8_candidates
from student_train.export.keeping import Kept, keep_ap
from student_train.export.metadata import PRECISION, add_metadata
from student_train.export.photos import photos, scorer
from student_train.runs.exported import load_exported
from student_train.runs.trained import TrainedStudent

Lower = Literal["float16", "int8"]
_WORDS = {"float16": "16 bits", "int8": "8 bits"}
_CALIBRATION = 8


@dataclass(frozen=True)
class Lowered:
    """A file of fewer bits, and what was measured on the way."""

    written: Exported
    kept: Kept


def data_of(student: TrainedStudent, data: Path | None) -> Path:
    """The data set that AP is measured on: as given, else the run's own.

    Raises:
        UsageError: neither is there.
    """
    own = student.config.data.root
    if data is not None:
        return data
    if own is None or not Path(str(own)).is_dir():
        raise UsageError(
            "--half and --int8 are taken as far as AP allows, which is measured on annotated "
            f"photos: give --data DATA (the run's own data set is {own or 'not recorded'}"
            + ("" if own is None else ", which is not here")
            + ")"
        )
    return Path(str(own))


def lessened(
    written: Exported,
    precision: Lower,
    validation: Validation,
    symmetric: bool,
    say: Say,
) -> Lowered:
    """Replace a float32 file by one of fewer bits.

    Raises:
        ExportError: it loses more AP than it may. The file is taken away, so that nobody takes it
            for what was asked for.
    """
    path = written.path
    try:
        file = load_exported(path)
        batches = photos(file, validation, _CALIBRATION)
        if precision == "int8":
            candidates = int8_candidates(path, batches, symmetric)
        else:
            candidates = half_candidates(path, batches)
        score = scorer(file, validation)
        kept = keep_ap(path, _WORDS[precision], candidates, batches, score, say)
        add_metadata(path, {PRECISION: precision, "lowered": kept.taken.parts})
    except TeachDetrError:
        path.unlink(missing_ok=True)
        raise
    say(f"{_WORDS[precision]:9} {kept.describe()}")
    made = replace(written, format=f"ONNX, {precision}, {kept.taken.parts}")
    return Lowered(made, kept)
