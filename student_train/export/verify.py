"""Whether an exported file computes the same wherever it runs, and how fast and in how much memory.

Each runtime runs the file in a process of its own on the same batches. Detections of a student's
file are compared as `check` does; the outputs of any other file number by number.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from box_store.patience import Say, patience
from student_train.errors import ExportError
from student_train.export.check import Agreement, agreement
from student_train.export.keeping import MOST_LOST
from student_train.export.program import Example
from student_train.export.runtimes import ONNX, REFERENCE, Runtime, Served, runtimes_of
from student_train.runs.exported import INPUTS, OUTPUTS, Feeds


@dataclass(frozen=True)
class Row:
    """What came of one runtime."""

    runtime: str
    version: str = ""
    failure: str = ""
    """why it ran nothing, or not all; empty if it did"""
    missing: bool = False
    """whether the runtime is not installed"""
    ran: bool = False
    score: float = 0.0
    """largest difference of a score, over all detections of all batches"""
    box: float = 0.0
    """largest difference of a box side, in image sides; of other tools' files: of any output, in
    its largest number"""
    changed: int = 0
    """detections that have no like of their class"""
    ms: float = 0.0
    """median of an image of the first batch"""
    peak_mib: float = 0.0
    """most memory that its process held"""
    ap: float | None = None
    """AP on the data that was given, in 0..1"""
    lower: bool = False
    """whether it computes with fewer bits than float32, the file or the runtime by itself: other
    numbers are right then, and AP is what decides"""
    lost: float | None = None
    """points of AP below what is right; None where no data was given"""

    def same(self, tolerance: float) -> bool:
        """Whether it computes the same numbers."""
        same = max(self.score, self.box) <= tolerance and not self.changed
        return self.ran and not self.failure and same

    def within(self, tolerance: float, most_lost: float = MOST_LOST) -> bool:
        """Whether it is as it should be: the same; or, with fewer bits, no more AP is lost than may
        be. Fewer bits without data to tell are let pass.
        """
        if self.lower and self.ran and not self.failure:
            return self.lost is None or self.lost <= most_lost
        return self.same(tolerance)

    def says(self, tolerance: float) -> str:
        """In two words."""
        if self.same(tolerance):
            return "the same"
        if not self.lower:
            return "something else"
        if self.lost is None:
            return "fewer bits"
        return "keeps AP" if self.within(tolerance) else "loses AP"

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return dict(vars(self))


def verify(
    path: Path,
    batches: Sequence[Feeds],
    *,
    expected: Sequence[Feeds] | None = None,
    threads: int = 1,
    repeats: int = 3,
    score: Callable[[Served], float] | None = None,
    expected_ap: float | None = None,
    lower: bool = False,
    say: Say = lambda text: None,
) -> list[Row]:
    """Run a file in every runtime that is here.

    Args:
        batches: inputs by name.
        expected: outputs for each batch; none: those of onnxruntime without any optimisation, or
            of a `.pt2` file by itself.
        repeats: how often the first batch is timed, after it ran once.
        score: a file in a runtime to its AP, in 0..1.
        expected_ap: what it should be; none, as with `expected`.
        lower: whether the file computes with fewer bits than float32.

    Raises:
        ExportError: no runtime reads such a file, or nothing says what is right.
    """
    runtimes = runtimes_of(path)
    if expected is None:
        if path.suffix.lower() != ONNX:
            raise ExportError(
                f"{path}: nothing says what is right, as torch alone runs it: give the run that it "
                "was made from, --run RUN"
            )
        with patience(say, f"running {path} in {REFERENCE.name}"), Served(REFERENCE, path) as it:
            expected = [it.run(batch) for batch in batches]
            if expected_ap is None and score is not None:
                expected_ap = score(it)
    rows = []
    for runtime in runtimes:
        if why := runtime.missing():
            rows.append(Row(runtime.name, failure=f"not here: {why}", missing=True))
            continue
        with patience(say, f"running {path} in {runtime.name}"):
            row = _row(runtime, path, batches, expected, threads, repeats, score)
        both = (expected_ap, row.ap)
        lost = None if None in both else 100 * (expected_ap - row.ap)  # type: ignore[operator]
        rows.append(replace(row, lower=lower or runtime.lower, lost=lost))
    return rows


def _row(
    runtime: Runtime,
    path: Path,
    batches: Sequence[Feeds],
    expected: Sequence[Feeds],
    threads: int,
    repeats: int,
    score: Callable[[Served], float] | None,
) -> Row:
    row = Row(runtime.name)
    try:
        with Served(runtime, path, threads) as served:
            row = replace(row, version=served.version)
            worst = Agreement(0.0, 0.0, 0)
            for batch, wanted in zip(batches, expected, strict=True):
                worst = worst.worse(compare(wanted, served.run(batch)))
            timed = [served.cost(batches[0]).wall for _ in range(repeats)]
            ap = None if score is None else score(served)
            n_images = len(next(iter(batches[0].values())))
            return replace(
                row,
                ran=True,
                score=worst.score,
                box=worst.box,
                changed=worst.changed,
                ms=1000 * statistics.median(timed) / n_images,
                peak_mib=served.peak_mib,
                ap=ap,
            )
    except ExportError as error:
        return replace(row, failure=str(error).splitlines()[0])


def compare(expected: Feeds, found: Feeds) -> Agreement:
    """How far outputs are from those expected.

    Raises:
        ExportError: an output is missing, or of another shape.
    """
    for name, value in expected.items():
        if name not in found or found[name].shape != value.shape:
            got = {key: list(each.shape) for key, each in found.items()}
            raise ExportError(f"expected an output {name} {list(value.shape)}, got {got}")
    if set(OUTPUTS) <= expected.keys():
        return agreement(*(detections(each) for each in (expected, found)))
    furthest = 0.0
    for name, value in expected.items():
        if value.size:
            wanted = value.astype(np.float64)
            apart = np.abs(wanted - found[name].astype(np.float64))
            scale = max(1.0, float(np.abs(wanted).max()))
            furthest = max(furthest, float(np.nan_to_num(apart, nan=np.inf).max()) / scale)
    return Agreement(0.0, furthest, 0)


def detections(outputs: Feeds) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, labels and boxes as tensors."""
    scores, labels, boxes = (torch.from_numpy(np.array(outputs[name])) for name in OUTPUTS)
    return scores, labels, boxes


def feeds(example: Example) -> Feeds:
    """A batch by the names of a student's file."""
    return dict(zip(INPUTS, (example.images.numpy(), example.mask.numpy()), strict=True))


def any_feeds(session: Any, side: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A batch of one for a file of any tool: noise for numbers, `side` px for what is free, and
    for inputs that tell the size of images.

    Raises:
        ExportError: an input of a type that no images or sizes have.
    """
    generator = np.random.default_rng(seed)
    made = {}
    for one in session.get_inputs():
        shape = [
            size if isinstance(size, int) else (1 if at == 0 else side)
            for at, size in enumerate(one.shape)
        ]
        kind = one.type.removeprefix("tensor(").removesuffix(")")
        if kind in ("float", "float16", "double"):
            dtype = {"float": np.float32, "float16": np.float16, "double": np.float64}[kind]
            made[one.name] = generator.random(shape, np.float32).astype(dtype)
        elif kind == "uint8":
            made[one.name] = generator.integers(0, 256, shape, np.uint8)
        elif kind == "bool":
            made[one.name] = np.zeros(shape, bool)
        elif kind in ("int64", "int32"):
            value = side if "size" in one.name.lower() else 1
            made[one.name] = np.full(shape, value, kind)
        else:
            raise ExportError(f"the input {one.name} is of {kind}, which no image has")
    return made
