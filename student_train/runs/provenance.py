"""Where a run comes from: versions of what computes it, and the revision of its sources."""

import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PACKAGES = (
    "teach-detr",
    "torch",
    "torchvision",
    "timm",
    "triton",
    "numpy",
    "scipy",
    "pycocotools",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version(), "platform": sys.platform}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def source_revision(folder: Path | None = None) -> dict[str, Any] | None:
    """Commit of this package's sources and whether they differ from it; None outside of git."""
    folder = folder or Path(__file__).resolve().parent
    commit = _git(folder, "rev-parse", "HEAD")
    # an installed package lies in site-packages, maybe inside somebody else's repository
    if commit is None or not _git(folder, "ls-files", "--", "."):
        return None
    return {"commit": commit, "modified": bool(_git(folder, "status", "--porcelain", "--", "."))}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What both know and know differently, each as `name: old -> new`."""
    return [
        f"{name}: {before[name]} -> {value}"
        for name, value in now.items()
        if name in before and before[name] != value
    ]
