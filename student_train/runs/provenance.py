"""Where a run comes from: versions of what computes it, and the revision of its sources."""

import hashlib
import importlib.metadata
import importlib.util
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# a result may depend on any of them: the trainer on its kernels and on the store it reads
_OURS = ("box_store", "detr_kernels", "student_train", "teacher_infer", "teach_detr")
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


def digest(files: Sequence[Path]) -> str:
    """sha256 of files, one after another."""
    found = hashlib.sha256()
    for path in files:
        with path.open("rb") as content:
            while block := content.read(1 << 20):
                found.update(block)
    return found.hexdigest()


def source_revision(folders: Sequence[Path] | None = None) -> dict[str, Any] | None:
    """Commit of the sources and whether they differ from it; None outside of git.

    `folders`: those of our packages, all in one repository; by default of all that are installed.
    """
    folders = folders or [folder for name in _OURS if (folder := _folder(name))]
    commit = _git(folders[0], "rev-parse", "HEAD")
    # an installed package lies in site-packages, maybe inside somebody else's repository
    if commit is None or not all(_git(folder, "ls-files", "--", ".") for folder in folders):
        return None
    changes = [_git(folder, "status", "--porcelain", "--", ".") for folder in folders]
    return {"commit": commit, "modified": any(changes)}


def _folder(package: str) -> Path | None:
    """Where a package lies; it is not imported."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).resolve().parent if spec is not None and spec.origin else None


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
