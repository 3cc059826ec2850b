"""What the benchmark writes: one flat row a measurement, each with its origin."""

import platform
import subprocess
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """A contender at one shape. Times are medians in ms over `calls` calls, with their spread:
    (90th - 10th percentile) / median.

    speedup_*: to the baseline in fp32 on the same path. roofline_*: share of the measured memory
    rate that the least possible traffic would need. errors: relative (RMS) to fp64. peak_mb: beyond
    the inputs, forward and backward.
    """

    shape: str
    law: str
    path: str
    contender: str
    dtype: str
    forward_ms: float
    forward_spread: float
    backward_ms: float
    backward_spread: float
    both_ms: float
    both_spread: float
    speedup_forward: float
    speedup_backward: float
    speedup_both: float
    roofline_forward: float | None
    roofline_backward: float | None
    peak_mb: float | None
    peak_ratio: float | None
    errors: dict[str, float]
    calls: int
    kind: Literal["operator"] = "operator"


@dataclass(frozen=True, slots=True)
class CeilingRow:
    """What the machine can do at most, as a rate."""

    name: str
    rate: float
    unit: str
    how: str
    kind: Literal["ceiling"] = "ceiling"


@dataclass(frozen=True, slots=True)
class FirstCallRow:
    """Forward and backward of the first call in a fresh process: compilers run, or a disk cache
    answers.
    """

    cache: Literal["empty", "filled"]
    path: str
    seconds: float
    kind: Literal["first call"] = "first call"


@dataclass(frozen=True, slots=True)
class FailureRow:
    """A peer that could not run, and what it said."""

    shape: str
    path: str
    contender: str
    dtype: str
    error: str
    kind: Literal["failure"] = "failure"


Row = OperatorRow | CeilingRow | FirstCallRow | FailureRow


@dataclass(frozen=True, slots=True)
class Origin:
    """Where and when a row was measured, on what and by which code."""

    device: str
    versions: dict[str, str]
    commit: str
    date: str


def origin(device: torch.device) -> Origin:
    """Of rows measured now on `device`."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    else:
        name = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    if torch.version.cuda is not None:
        versions["cuda"] = torch.version.cuda
    for package in ("triton", "numba"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Origin(name, versions, _commit(), date)


def flat(row: Row, source: Origin) -> dict[str, Any]:
    """A row as JSON has it: what it is first, where it comes from last."""
    fields = asdict(row)
    return {"kind": fields.pop("kind"), **fields, **asdict(source)}


def _commit() -> str:
    """The checkout's commit, with + where files differ from it; "unknown" for an installed copy."""
    package = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + (
            "+" if git("status", "--porcelain", "--", ".") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
