"""What `export --onnx` and `--torch-export` do, from options to files that were run everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from box_store.errors import UsageError
from box_store.patience import Say
from box_store.places.files import check_writable
from student_train.data.splits import Validation
from student_train.export import Exported, export_student
from student_train.export.attention import SAMPLERS, Sampler
from student_train.export.files import require_onnx
from student_train.export.photo_input import check_fits, photos_apart, take_photos
from student_train.export.photos import open_validation
from student_train.export.precision import Lower, data_of, lessened
from student_train.export.program import DYNAMIC, Dynamic
from student_train.export.runtimes import ONNX, TORCH
from student_train.export.targets import Target, target_of
from student_train.export.verifying import Asked, Verified, verify_file
from student_train.runs.trained import TrainedStudent
from student_train.settings.sizes import parse_size

_SMALLEST = 32
T = TypeVar("T", bound=str)


@dataclass(frozen=True)
class Made:
    """A file that was written, and what came of it where it ran."""

    exported: Exported
    verified: Verified | None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Programs:
    """Which files to write, and how."""

    onnx: Path | None
    torch_export: Path | None
    target: Target
    sampler: Sampler
    dynamic: Dynamic
    size: tuple[int, int] | None
    precision: Lower | None
    data: Path | None
    split: str | None
    limit: int | None
    fused_input: bool
    tolerance: float
    verify: bool
    notes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def asked(
        cls,
        *,
        onnx: Path | None,
        torch_export: Path | None,
        runtime: str | None,
        size: str | None,
        dynamic: str | None,
        sampler: str | None,
        half: bool,
        int8: Path | None,
        data: Path | None,
        split: str | None,
        limit: int,
        fused_input: bool,
        tolerance: float,
        verify: bool,
    ) -> Programs | None:
        """From the command's options; None where no such file is asked for.

        Raises:
            TeachDetrError: options that do not go together, or a place that cannot be written.
        """
        target = target_of(runtime)
        if onnx is None and torch_export is None:
            if runtime is not None or half or int8 is not None or fused_input:
                raise UsageError(
                    "--for, --half, --int8 and --fused-input are of programs: give --onnx FILE too"
                )
            return None
        for file, suffix in ((onnx, ONNX), (torch_export, TORCH)):
            _check_place(file, suffix)
        if onnx is None and (half or int8 is not None or fused_input):
            raise UsageError(
                "--half, --int8 and --fused-input are of ONNX files: give --onnx FILE too"
            )
        if half and int8 is not None:
            raise UsageError("--half and --int8 are two precisions: choose one")
        if target.lowers_itself and (half or int8 is not None):
            raise UsageError(
                f"--for {runtime} takes float32, and has tools of its own for less: leave --half "
                "and --int8 out"
            )
        if int8 is not None and data is not None and data != int8:
            raise UsageError(
                f"--int8 {int8} and --data {data} are two data sets for one measurement: leave "
                "--data out"
            )
        if not tolerance > 0:
            raise UsageError(f"--tolerance is more than 0, got {tolerance:g}")
        if limit < 0:
            raise UsageError(f"--limit is at least 1, or 0 for all images, got {limit}")
        precision: Lower | None = "float16" if half else "int8" if int8 is not None else None
        return cls(
            onnx,
            torch_export,
            target,
            _one_of("--sampler", sampler, SAMPLERS, target.sampler),
            _one_of("--dynamic", dynamic, DYNAMIC, target.dynamic),
            None if size is None else parse_size(size, _SMALLEST),
            precision,
            data if int8 is None else int8,
            split,
            limit or None,
            fused_input,
            tolerance,
            verify,
            {**target.notes, **({} if runtime is None else {"for": runtime})},
        )

    def write(self, student: TrainedStudent, notes: Mapping[str, str], say: Say) -> Iterator[Made]:
        """Write each file and run it everywhere; `notes` are for the metadata.

        Raises:
            TeachDetrError: see `export_student`, `lessened` and `verify_file`.
        """
        if self.onnx is not None:
            require_onnx()
        multiple = student.config.model.side_multiple
        own = student.config.augment.eval_size
        size = self.size or (-(-own[0] // multiple) * multiple, -(-own[1] // multiple) * multiple)
        if self.fused_input and self.dynamic != "size":
            check_fits(student.config, size)
        split = self.split or student.config.data.val_split
        data, validation = self._photos(student, split)
        done = export_student(
            student,
            size,
            onnx=self.onnx,
            torch_export=self.torch_export,
            dynamic=self.dynamic,
            sampler=self.sampler,
            tolerance=self.tolerance,
            notes={**notes, **self.notes},
            compare_torch=not self.verify,
            say=say,
        )
        asked = Asked(data, split, self.limit, threads=1, tolerance=self.tolerance)
        ap: float | None = None
        for each in done:
            expected_ap, remarks = ap, []
            is_onnx = each.path == self.onnx
            if is_onnx and self.precision is not None and validation is not None:
                lowered = lessened(each, self.precision, validation, self.target.symmetric, say)
                each, expected_ap = lowered.written, lowered.kept.tried[0].ap / 100
            if is_onnx and self.fused_input:
                take_photos(each.path, student.config)
                apart = photos_apart(each.path, student.config)
                remarks.append(
                    f"photos    pixels made in the file are within {apart:.2g} grey levels of "
                    "those made outside"
                )
                each = replace(each, format=f"{each.format}, takes photos")
            verified = None
            if self.verify:
                verified = verify_file(
                    each.path, asked, original=student, expected_ap=expected_ap, say=say
                )
                ap = verified.expected_ap
            yield Made(each, verified, tuple(remarks))

    def _photos(self, student: TrainedStudent, split: str) -> tuple[Path | None, Validation | None]:
        """Opened before the work, as they may not be there."""
        data = self.data if self.precision is None else data_of(student, self.data)
        if data is None:
            return None, None
        return data, open_validation(student, data, split, self.limit)


def _check_place(file: Path | None, suffix: str) -> None:
    if file is None:
        return
    if file.suffix.lower() != suffix:
        raise UsageError(f"{file}: expected a name that ends in {suffix}, which readers go by")
    if file.is_dir():
        raise UsageError(f"{file} is a folder: expected the name of a file")
    check_writable(file.parent, "choose another place")


def _one_of(option: str, given: str | None, known: tuple[T, ...], default: T) -> T:
    if given is None:
        return default
    for each in known:
        if each == given:
            return each
    raise UsageError(f"{option} is one of {', '.join(known)}, got {given!r}")
