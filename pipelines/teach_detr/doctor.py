"""What this machine has and what the project will use of it: the report of `teach-detr doctor`."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from teach_detr.torch_facts import TorchFacts, ask_torch
from teacher_infer.adapters.registry import adapter_help

_LIBRARIES = (
    "teach-detr",
    "torch",
    "torchvision",
    "triton",
    "timm",
    "numpy",
    "scipy",
    "pyarrow",
    "pycocotools",
    "duckdb",
    "ray",
    "matplotlib",
    "pillow",
    "opencv-python",
)

# what the extras of the distribution bring that are no teacher's, by import name
_EXTRAS = {"sql": ("duckdb",), "ray": ("ray",), "plot": ("matplotlib",)}

_OURS = ("box_store", "teacher_infer", "student_train", "detr_kernels", "teach_detr")

# distributions that cannot both be installed, and what goes wrong
_RIVALS = (
    (("opencv-python", "opencv-python-headless"), "they overwrite each other's cv2"),
    (("mmcv", "mmcv-lite"), "they overwrite each other's mmcv"),
)


@dataclass(frozen=True)
class Finding:
    """Something that will go wrong, or may: what it is and what to do."""

    level: str  # "problem" or "note"
    message: str


@dataclass(frozen=True)
class Diagnosis:
    """Everything that `doctor` reports; `to_json` has the same keys."""

    python: str
    platform: str
    cpus: int
    threads: int | None
    devices: list[dict[str, Any]]
    kernel: list[dict[str, str]]
    versions: dict[str, str | None]
    extras: dict[str, bool]
    licences: list[dict[str, str]]
    findings: list[Finding]

    @property
    def healthy(self) -> bool:
        """Whether nothing was found that will go wrong."""
        return not any(finding.level == "problem" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {**asdict(self), "healthy": self.healthy}


def diagnose() -> Diagnosis:
    """Look at this machine; changes nothing, opens no network connection, and imports torch only in
    a process of its own.
    """
    torch = ask_torch()
    return Diagnosis(
        python=platform.python_version(),
        platform=platform.platform(),
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
        threads=torch.threads,
        devices=torch.devices,
        kernel=torch.kernel,
        versions=_versions(),
        extras=_extras(),
        licences=_licences(),
        findings=[*_name_collisions(), *_rivals(), *_ray_notes(), *_gpu_notes(torch)],
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _installed(import_name: str) -> bool:
    return importlib.util.find_spec(import_name) is not None


def _versions() -> dict[str, str | None]:
    """Of the libraries that all use, and of those behind each adapter."""
    found = {name: _version(name) for name in _LIBRARIES}
    for info in adapter_help():
        found |= {name: _version(name) for name in info.distributions}
    return found


def _extras() -> dict[str, bool]:
    """Each extra of the distribution -> whether all that it brings is installed."""
    adapters = {info.extra: info.is_installed for info in adapter_help() if info.extra}
    return {extra: all(map(_installed, names)) for extra, names in _EXTRAS.items()} | adapters


def _licences() -> list[dict[str, str]]:
    """Each teacher framework that is installed, with the licence that boxes made by it inherit."""
    return [
        {"adapter": info.name, "licence": info.licence}
        for info in adapter_help()
        if info.is_installed
    ]


def _name_collisions() -> list[Finding]:
    """Whether `import X` finds our packages, and whether a folder called `kernels` is mistaken for
    one.
    """
    findings: list[Finding] = []
    root = Path(__file__).resolve().parent
    owners = _owners()
    for name in _OURS:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            findings.append(
                Finding("problem", f"{name} cannot be imported: install teach-detr again")
            )
            continue
        others = ", ".join(sorted(owners.get(name, set()) - {"teach-detr"}))
        if others:
            findings.append(
                Finding(
                    "problem", f"{others} installs a package {name} too: uninstall one of the two"
                )
            )
        # in a checkout the packages lie in a known place; a stray folder in front would shadow them
        place = Path(spec.origin).resolve().parent
        expected = _checkout_place(root, name)
        if expected is not None and expected.is_dir() and place != expected:
            findings.append(
                Finding(
                    "problem",
                    f"import {name} finds {place}, not {expected}: take it off the path",
                )
            )
    foreign = owners.get("kernels")
    if foreign:
        findings.append(
            Finding(
                "note",
                f"the package kernels belongs to {', '.join(sorted(foreign))}; ours is called "
                "detr_kernels, so the two do not meet",
            )
        )
    return findings


def _checkout_place(root: Path, name: str) -> Path | None:
    if root.parent.name != "pipelines":
        return None
    source = {"detr_kernels": "kernels", "teach_detr": "pipelines"}.get(name, ".")
    return (root.parent.parent / source / name).resolve()


def _owners() -> dict[str, set[str]]:
    """The distributions that install each top-level name, normalised."""
    return {
        name: {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners}
        for name, owners in importlib.metadata.packages_distributions().items()
    }


def _rivals() -> list[Finding]:
    return [
        Finding("problem", f"{' and '.join(names)} are both installed: {why}; uninstall one")
        for names, why in _RIVALS
        if all(_version(name) for name in names)
    ]


def _ray_notes() -> list[Finding]:
    if not _installed("ray"):
        return [
            Finding("note", "Ray is not installed: teachers run in this process (--local) only")
        ]
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if mode == "disabled":
        return [Finding("note", "Ray: RAY_AUTH_MODE=disabled, local clusters take no token")]
    place = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    state = "is there" if place.exists() else "will be made on the first run"
    return [
        Finding(
            "note",
            f"Ray asks local clusters for a token; {place} {state} "
            "(RAY_AUTH_TOKEN_PATH moves it, RAY_AUTH_MODE=disabled does without)",
        )
    ]


def _gpu_notes(torch: TorchFacts) -> list[Finding]:
    if torch.failure:
        return [Finding("problem", f"{torch.failure}: install torch again, for this machine")]
    if torch.devices and not _installed("triton"):
        return [
            Finding("problem", "there is a GPU but no Triton: attention runs the slower torch path")
        ]
    if sys.platform == "linux" and not torch.devices and Path("/dev/nvidia0").exists():
        return [
            Finding("problem", "there is an NVIDIA device, but this torch cannot use it (driver?)")
        ]
    return []


def print_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """The report for people: one line a fact, problems last."""

    def say(head: str, text: str, style: str | None = None) -> None:
        console.print(
            f"{head:<10}{text}", markup=False, highlight=False, soft_wrap=True, style=style
        )

    say("python", f"{diagnosis.python} on {diagnosis.platform}")
    threads = f", torch uses {diagnosis.threads} threads" if diagnosis.threads else ""
    say("cpu", f"{diagnosis.cpus} cores for this process{threads}")
    for device in diagnosis.devices:
        say("gpu", f"{device['name']}, {device['memory_gib']} GiB, sm {device['capability']}")
    if not diagnosis.devices:
        say("gpu", "none that torch can use")
    for row in diagnosis.kernel:
        say("attention", f"{row['device']}: {row['backend']} ({row['reason']})")
    found = [f"{name} {version}" for name, version in diagnosis.versions.items() if version]
    say("versions", ", ".join(found))
    absent = [extra for extra, there in diagnosis.extras.items() if not there]
    say("extras", ", ".join(extra for extra, there in diagnosis.extras.items() if there) or "none")
    if absent:
        say(
            "", f"not installed: {', '.join(absent)} (pip install 'teach-detr[{','.join(absent)}]')"
        )
    by_licence: dict[str, list[str]] = {}
    for row in diagnosis.licences:
        by_licence.setdefault(row["licence"], []).append(row["adapter"])
    listed = "; ".join(f"{licence}: {', '.join(names)}" for licence, names in by_licence.items())
    say("licences", f"{listed} (of the frameworks; each teacher's own is in the store)")
    for finding in diagnosis.findings:
        say(finding.level, finding.message, "red" if finding.level == "problem" else None)
    if diagnosis.healthy:
        say("result", "nothing found that will go wrong")
