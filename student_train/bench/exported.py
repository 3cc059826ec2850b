"""A student where it is deployed: eager, as files in runtimes, and beside the same model of
transformers; one image at a time on one core, in turns.
"""

from __future__ import annotations

import copy
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from box_store.errors import TeachDetrError
from box_store.measure.paired import Cost, Interval, in_turns
from box_store.patience import Say, patience
from student_train.export import export_student
from student_train.export.half import half_candidates
from student_train.export.int8 import int8_candidates
from student_train.export.program import Example
from student_train.export.runtimes import RUNTIMES, TRANSFORMERS, Runtime, Served
from student_train.export.transformers_folder import export_folder
from student_train.export.verify import feeds
from student_train.models.fusing import make_ready
from student_train.runs.trained import TrainedStudent

EAGER = "eager"


@dataclass(frozen=True)
class ExportRow:
    """One way to run a student, on images of one size without padding."""

    name: str
    version: str = ""
    ms: float | None = None
    """median of processor time an image"""
    faster: tuple[float, float, float] | None = None
    """times as fast as eager: median of the rounds' ratios, and where it lies with 90 %"""
    mib: float | None = None
    """size of the file"""
    peak_mib: float | None = None
    """most memory of a runtime's process"""
    problem: str = ""
    """why there is no number"""

    def to_json(self, about: dict[str, Any]) -> dict[str, Any]:
        """One record."""
        return {"kind": "export", **asdict(self), **about}


@dataclass
class _Arm:
    """Something to measure."""

    name: str
    version: str
    cost: Callable[[], Cost]
    path: Path | None = None
    served: Served | None = None


def bench_exported(
    student: TrainedStudent, size: tuple[int, int], rounds: int, say: Say = lambda text: None
) -> list[ExportRow]:
    """Rows in the order of the table, eager first.

    16 and 8 bits are taken everywhere, whatever AP says: `export --half` and `--int8` look at that.

    Raises:
        ExportError: the student cannot be exported.
    """
    torch.set_num_threads(1)
    example = Example.make(1, *size)
    example = Example(example.images, torch.zeros_like(example.mask))
    rows: list[ExportRow] = []
    with tempfile.TemporaryDirectory(prefix="teach-detr-") as name, ExitStack() as stack:
        folder = Path(name)
        arms = [_eager(student, example)]
        for way in (_files(student, size, folder, example, say), _peers(student, folder, example)):
            for arm in way:
                if isinstance(arm, ExportRow):
                    rows.append(arm)
                    continue
                try:
                    if arm.served is not None:
                        arm.served = stack.enter_context(arm.served)
                        arm.version = arm.served.version
                    # memory and caches are filled now
                    arm.cost()
                except TeachDetrError as error:
                    problem = str(error).splitlines()[0]
                    rows.append(ExportRow(arm.name, arm.version, problem=problem))
                    continue
                arms.append(arm)
        with patience(say, f"measuring {len(arms)} in turns, {rounds} rounds"):
            found = in_turns(rounds, range(len(arms)), lambda at: arms[at].cost())
        measured = [_row(arm, found[at], found[0]) for at, arm in enumerate(arms)]
    return measured + rows


def _row(arm: _Arm, costs: Sequence[Cost], eager: Sequence[Cost]) -> ExportRow:
    ratios = [base.cpu / cost.cpu for cost, base in zip(costs, eager, strict=True)]
    return ExportRow(
        arm.name,
        arm.version,
        1000 * statistics.median(cost.cpu for cost in costs),
        tuple(Interval.of(ratios)),  # type: ignore[arg-type]
        None if arm.path is None else arm.path.stat().st_size / 2**20,
        None if arm.served is None else arm.served.peak_mib,
    )


def _timed(run: Callable[[], object]) -> Callable[[], Cost]:
    def cost() -> Cost:
        begun, used = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            run()
        return Cost(time.perf_counter() - begun, time.process_time() - used)

    return cost


def _eager(student: TrainedStudent, example: Example) -> _Arm:
    """As `predict` has it."""
    model = copy.deepcopy(student.model).eval()
    make_ready(model, torch.device("cpu"))
    return _Arm(EAGER, torch.__version__, _timed(lambda: model(example.images, example.mask)))


def _files(
    student: TrainedStudent, size: tuple[int, int], folder: Path, example: Example, say: Say
) -> Iterator[_Arm | ExportRow]:
    path = folder / "float32.onnx"
    # random weights amplify rounding and nearly tie everywhere; the time alone is asked for
    export_student(student, size, onnx=path, tolerance=math.inf, say=say)
    batch = feeds(example)
    half, int8 = folder / "float16.onnx", folder / "int8.onnx"
    with patience(say, "16 and 8 bits"):
        half_candidates(path, [batch])[0].write(half)
        int8_candidates(path, [batch])[0].write(int8)
    ort, plain, lower = (
        next(each for each in RUNTIMES if each.name == name)
        for name in ("onnxruntime", "openvino, float32", "openvino")
    )
    pairs: list[tuple[str, Runtime, Path]] = [
        ("onnxruntime, float32", ort, path),
        ("onnxruntime, float16", ort, half),
        ("onnxruntime, 8 bits", ort, int8),
        (plain.name, plain, path),
        ("openvino, by itself", lower, path),
        ("openvino, 8 bits", plain, int8),
    ]
    for name, runtime, file in pairs:
        if why := runtime.missing():
            yield ExportRow(name, problem=why)
            continue
        served = Served(runtime, file)
        yield _Arm(name, "", lambda served=served: served.cost(batch), file, served)


def _peers(student: TrainedStudent, folder: Path, example: Example) -> Iterator[_Arm | ExportRow]:
    """The same weights in transformers, where it has the family."""
    name = "transformers, eager"
    if why := TRANSFORMERS.missing():
        yield ExportRow(name, problem=why)
        return
    try:
        export_folder(student, folder / "theirs")
    except TeachDetrError as error:
        yield ExportRow(name, problem=str(error).splitlines()[0])
        return
    served, batch = Served(TRANSFORMERS, folder / "theirs"), feeds(example)
    yield _Arm(name, "", lambda: served.cost(batch), None, served)


def export_table(rows: Sequence[ExportRow], title: str) -> Table:
    """A row a way, eager first."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    table.add_column("")
    for column in ("ms/image", "times as fast", "MiB of file", "MiB held"):
        table.add_column(column, justify="right")
    table.add_column("")
    for row in rows:
        table.add_row(
            row.name,
            row.version,
            "" if row.ms is None else f"{row.ms:.1f}",
            "" if row.faster is None else Interval(*row.faster).text("{:.2f}"),
            "" if row.mib is None else f"{row.mib:.1f}",
            "" if row.peak_mib is None else f"{row.peak_mib:.0f}",
            row.problem,
        )
    return table
