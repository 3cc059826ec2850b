"""Runtimes that an exported file may run in here, each in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from box_store.measure.paired import Cost
from student_train.errors import ExportError

_FOLDER = Path(__file__).parent / "served"


@dataclass(frozen=True)
class Runtime:
    """One runtime: how it is called, the package that it needs, and the files that it reads."""

    name: str
    package: str
    reads: str
    advice: str
    in_node: bool = False
    lower: bool = False
    """whether it takes fewer bits than float32 by itself, where the CPU has them"""

    def missing(self) -> str:
        """Why it cannot run here; empty if it can."""
        if self.in_node:
            if shutil.which("node") is None:
                return "node is not installed"
            asked = "require.resolve('onnxruntime-web')"
            found = subprocess.run(["node", "-e", asked], capture_output=True, check=False)
            return "" if found.returncode == 0 else self.advice
        return "" if importlib.util.find_spec(self.package) else self.advice

    def command(self, path: Path, threads: int) -> list[str]:
        """What serves a file."""
        if self.in_node:
            return ["node", str(_FOLDER / "serve.cjs"), str(path), str(threads)]
        return [sys.executable, str(_FOLDER / "serve.py"), self.name, str(path), str(threads)]


ONNX = ".onnx"
TORCH = ".pt2"
REFERENCE = Runtime("onnxruntime, not optimised", "onnxruntime", ONNX, "")
RUNTIMES = (
    Runtime("onnxruntime", "onnxruntime", ONNX, "pip install 'teach-detr[onnx]'"),
    Runtime("openvino, float32", "openvino", ONNX, "pip install 'teach-detr[openvino]'"),
    Runtime("openvino", "openvino", ONNX, "pip install 'teach-detr[openvino]'", lower=True),
    Runtime(
        "onnxruntime-web", "onnxruntime-web", ONNX, "npm install onnxruntime-web here", in_node=True
    ),
    Runtime("torch.export", "torch", TORCH, "pip install torch"),
)

TRANSFORMERS = Runtime("transformers", "transformers", "", "pip install 'teach-detr[transformers]'")
"""runs a folder of `export --transformers`, to be compared in speed"""


def runtimes_of(path: Path) -> tuple[Runtime, ...]:
    """Those that read such a file.

    Raises:
        ExportError: none does.
    """
    found = tuple(each for each in RUNTIMES if each.reads == path.suffix.lower())
    if not found:
        raise ExportError(
            f"{path}: expected an .onnx file, or a .pt2 file of torch.export, which are what runs "
            "here"
        )
    return found


@dataclass
class Served:
    """A file in a runtime's own process, to be asked batch by batch."""

    runtime: Runtime
    path: Path
    threads: int = 1
    version: str = ""
    costs: list[Cost] = field(default_factory=list)
    """of each batch"""
    peak_mib: float = 0.0
    """most memory that its process has held so far"""

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="teach-detr-")
        self._process = subprocess.Popen(
            self.runtime.command(self.path.resolve(), self.threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            self.version = str(self._answer()["ready"])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name.

        Raises:
            ExportError: the runtime failed; its own words.
        """
        inputs = []
        for at, (name, value) in enumerate(feeds.items()):
            np.ascontiguousarray(value).tofile(Path(self._folder.name) / f"{at}.in")
            inputs.append({"name": name, "dtype": str(value.dtype), "shape": list(value.shape)})
        assert self._process.stdin is not None
        job = json.dumps({"folder": self._folder.name, "inputs": inputs})
        try:
            self._process.stdin.write(job + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer says why
        answer = self._answer()
        self.costs.append(Cost(float(answer["seconds"]), float(answer["cpu"])))
        self.peak_mib = float(answer["peak_mib"])
        return {
            one["name"]: np.fromfile(Path(self._folder.name) / f"{at}.out", one["dtype"]).reshape(
                one["shape"]
            )
            for at, one in enumerate(answer["outputs"])
        }

    def cost(self, feeds: Mapping[str, np.ndarray]) -> Cost:
        """Of a batch, in the runtime alone. Raises ExportError as `run`."""
        self.run(feeds)
        return self.costs[-1]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        # node's libraries may print between the answers
        for line in self._process.stdout:
            if line.startswith("{"):
                answer = json.loads(line)
                if "error" in answer:
                    raise ExportError(f"{self.runtime.name}: {answer['error']}")
                return answer
        code = self._process.wait()
        raise ExportError(f"{self.runtime.name} ended with code {code} on {self.path}")
