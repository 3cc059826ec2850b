"""Files of fewer bits, as few as AP allows: what is left in float32 is found by measurement."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from box_store.measure.paired import in_turns
from box_store.patience import Say, patience
from student_train.errors import ExportError
from student_train.export.runtimes import RUNTIMES, Served
from student_train.runs.exported import Feeds

MOST_LOST = 1.0
"""points of AP"""
_ROUNDS = 15


@dataclass(frozen=True)
class Candidate:
    """One way to lower precision: what is lowered, for people, and what writes the file."""

    parts: str
    write: Callable[[Path], object]


@dataclass(frozen=True)
class Tried:
    """What was lowered, and what came of it."""

    parts: str
    ap: float
    """in percent"""
    size: int
    """bytes"""
    ms: float | None = None
    """processor time of a batch on one core in onnxruntime, median, in turns with float32; of what
    was taken"""

    def describe(self) -> str:
        """For people."""
        speed = "" if self.ms is None else f", {self.ms:.1f} ms"
        return f"{self.parts}: AP {self.ap:.1f}, {self.size / 2**20:.1f} MiB{speed}"


@dataclass(frozen=True)
class Kept:
    """The file that was taken, and all that were measured, float32 first."""

    taken: Tried
    tried: list[Tried]

    def describe(self) -> str:
        """For people: what was lost and won."""
        before = self.tried[0]
        faster = (before.ms or 0.0) / (self.taken.ms or 1.0)
        return (
            f"{self.taken.parts}: AP {before.ap:.1f} -> {self.taken.ap:.1f}, {faster:.2f} times as "
            f"fast, {self.taken.size / before.size:.2f} of the size"
        )


def keep_ap(
    path: Path,
    kind: str,
    candidates: Sequence[Candidate],
    batches: Sequence[Feeds],
    score: Callable[[Served], float],
    say: Say = lambda text: None,
    most_lost: float = MOST_LOST,
) -> Kept:
    """Replace a file by the first candidate that keeps AP.

    Args:
        kind: of precision, for people: `8 bits`.
        candidates: from the lowest precision to the highest.
        batches: photos that speed is measured on.
        score: a file in a runtime to its AP, in 0..1.
        most_lost: points of AP that it may lose.

    Raises:
        ExportError: all lose more; the file stays as it is.
    """

    def measured(parts: str, file: Path) -> Tried:
        with patience(say, f"measuring AP of {parts}"), Served(RUNTIMES[0], file) as served:
            return Tried(parts, 100 * score(served), file.stat().st_size)

    tried = [measured("float32", path)]
    with tempfile.TemporaryDirectory(prefix="teach-detr-") as folder:
        for candidate in candidates:
            target = Path(folder) / "lower.onnx"
            with patience(say, f"{kind}: {candidate.parts}"):
                candidate.write(target)
            tried.append(measured(candidate.parts, target))
            say(f"tried     {tried[-1].describe()} ({tried[0].describe()})")
            if tried[-1].ap >= tried[0].ap - most_lost:
                with patience(say, "measuring speed in turns"):
                    before, after = _speeds((path, target), batches)
                tried[0], tried[-1] = replace(tried[0], ms=before), replace(tried[-1], ms=after)
                path.write_bytes(target.read_bytes())
                return Kept(tried[-1], tried)
    raise ExportError(
        f"{kind} lose more than {most_lost:g} points of AP whatever is left out ("
        + "; ".join(each.describe() for each in tried)
        + "): the file was not made"
    )


def _speeds(paths: Sequence[Path], batches: Sequence[Feeds]) -> list[float]:
    """Milliseconds of processor time a batch of each file, on one core."""
    with ExitStack() as stack:
        served = [stack.enter_context(Served(RUNTIMES[0], path)) for path in paths]
        for each in served:
            each.run(batches[0])
        costs = in_turns(_ROUNDS, range(len(paths)), lambda at: served[at].cost(batches[0]).cpu)
    return [1000 * statistics.median(costs[at]) for at in range(len(paths))]


HEAVY = ("Conv", "MatMul", "Gemm")


def choices(nodes: Sequence[Any]) -> list[tuple[str, list[str]]]:
    """What may be lowered, and the names of the heavy nodes that are left out then.

    `nodes` are those of an ONNX graph, in order of execution.
    """
    heavy = [node for node in nodes if node.op_type in HEAVY]
    order = {node.name: at for at, node in enumerate(nodes)}
    first = min((at for at, node in enumerate(nodes) if node.op_type == "TopK"), default=len(nodes))
    behind = [node.name for node in heavy if order[node.name] > first]
    products = [node.name for node in heavy if node.op_type != "Conv"]
    found: list[tuple[str, list[str]]] = [("everything", [])]
    if behind:
        found.append(("what comes before the queries", behind))
    if len(products) < len(heavy):
        found.append(("convolutions", products))
    return found
