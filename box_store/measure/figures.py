"""What the benchmark measures with, and the figures that come of it."""

import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from box_store.measure.processes import forget_peak, peak_bytes, resident_bytes

_T = TypeVar("_T")


@dataclass(frozen=True)
class Figure:
    """One measured value, maybe beside a peer's.

    ratio: how many times better than the peer. peak_mib: memory beyond what the process held
    before; None where it was not measured.
    """

    group: str
    name: str
    value: float
    unit: str
    peer: str = ""
    peer_value: float | None = None
    ratio: float | None = None
    peak_mib: float | None = None


@dataclass(frozen=True)
class Spent:
    """What some work took: seconds by the clock, of the CPU in all threads, and memory."""

    wall_s: float
    cpu_s: float
    peak_mib: float | None


def spend(work: Callable[[], _T]) -> tuple[Spent, _T]:
    """Do the work and say what it took."""
    forget_peak()
    before = resident_bytes()
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    after = peak_bytes()
    peak = None if before is None or after is None else max(after - before, 0) / 2**20
    return Spent(wall_s, cpu_s, peak), result


def machine() -> dict[str, str]:
    """Where the figures come from."""
    return {
        "processor": _processor(),
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
    }


def table(figures: Iterable[Figure]) -> str:
    """Lines for people, a blank one and a title before each group."""
    rows: list[tuple[str, ...]] = []
    for figure in figures:
        if not any(row[0] == figure.group for row in rows):
            rows.append((figure.group,))
        beside = ratio = peak = ""
        if figure.peer_value is not None:
            beside = f"{figure.peer} {_short(figure.peer_value)}"
        if figure.ratio is not None:
            ratio = f"{_short(figure.ratio)} x"
        if figure.peak_mib is not None:
            peak = f"{figure.peak_mib:.0f} MiB"
        value = f"{_short(figure.value)} {figure.unit}"
        rows.append((figure.group, figure.name, value, beside, ratio, peak))
    return "\n".join(_lines(rows))


def _lines(rows: Sequence[tuple[str, ...]]) -> list[str]:
    cells = [row[1:] for row in rows if len(row) > 1]
    widths = [max((len(row[column]) for row in cells), default=0) for column in range(5)]
    lines: list[str] = []
    for row in rows:
        if len(row) == 1:
            lines += ["", row[0]]
        else:
            padded = [
                text.rjust(width) if column == 4 else text.ljust(width)
                for column, (text, width) in enumerate(zip(row[1:], widths, strict=True))
            ]
            lines.append(f"  {'  '.join(padded)}".rstrip())
    return lines


def _short(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _commit() -> str:
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return asked.stdout.strip()
