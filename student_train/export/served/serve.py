"""onnxruntime, OpenVINO, torch.export and transformers: `python serve.py RUNTIME FILE THREADS`; see
this folder's `__init__.py` for what goes in and out.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Feeds = dict[str, np.ndarray]
Program = Callable[[Feeds], Feeds]


def onnxruntime(path: str, threads: int, plain: bool = False) -> tuple[str, Program]:
    """plain: without any optimisation of the graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(feeds: Feeds) -> Feeds:
        found: list[Any] = list(session.run(names, feeds))
        return dict(zip(names, found, strict=True))

    return onnxruntime.__version__, run


def openvino(path: str, threads: int, precision: str | None = None) -> tuple[str, Program]:
    """precision: of the computation; None: what OpenVINO takes by itself."""
    import openvino

    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads}
    if precision is not None:
        settings["INFERENCE_PRECISION_HINT"] = precision
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    names = [output.get_any_name() for output in compiled.outputs]

    def run(feeds: Feeds) -> Feeds:
        found = compiled(feeds)
        return {name: np.array(found[name]) for name in names}

    return openvino.__version__.split("-")[0], run


def torch_export(path: str, threads: int) -> tuple[str, Program]:
    """Without this package: what it would add to torch cannot be imported."""
    import torch

    class Nothing:
        def find_spec(self, name: str, *_: object) -> None:
            if name.split(".")[0] in ("detr_kernels", "student_train", "box_store", "timm"):
                raise ImportError(f"{name} is not there")

    sys.meta_path.insert(0, Nothing())  # type: ignore[arg-type]
    torch.set_num_threads(threads)
    with Path(path).open("rb") as file:
        module = torch.export.load(file).module()

    def run(feeds: Feeds) -> Feeds:
        with torch.inference_mode():
            found = module(*(torch.from_numpy(each) for each in feeds.values()))
        return dict(zip(("scores", "labels", "boxes"), (each.numpy() for each in found)))  # noqa: B905

    return torch.__version__, run


def transformers(path: str, threads: int) -> tuple[str, Program]:
    """A folder of transformers, eager; the mask is that of a student, True on padding."""
    import torch

    # by name, as the trainer and what is beside it know no such framework
    library = importlib.import_module("transformers")
    torch.set_num_threads(threads)
    model = library.AutoModelForObjectDetection.from_pretrained(path).eval()

    def run(feeds: Feeds) -> Feeds:
        images, mask = (torch.from_numpy(feeds[name]) for name in ("images", "mask"))
        with torch.inference_mode():
            found = model(pixel_values=images, pixel_mask=(~mask).long())
        return {"logits": found.logits.numpy(), "boxes": found.pred_boxes.numpy()}

    return library.__version__, run


PROGRAMS: dict[str, Callable[[str, int], tuple[str, Program]]] = {
    "onnxruntime": onnxruntime,
    "onnxruntime, not optimised": lambda path, threads: onnxruntime(path, threads, plain=True),
    "openvino, float32": lambda path, threads: openvino(path, threads, "f32"),
    "openvino": openvino,
    "torch.export": torch_export,
    "transformers": transformers,
}


def batch(job: dict[str, Any], run: Program) -> dict[str, Any]:
    """The answer to one line."""
    folder = Path(job["folder"])
    feeds = {
        one["name"]: np.fromfile(folder / f"{at}.in", one["dtype"]).reshape(one["shape"])
        for at, one in enumerate(job["inputs"])
    }
    begun, used = time.perf_counter(), time.process_time()
    found = run(feeds)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    outputs = []
    for at, (name, value) in enumerate(found.items()):
        np.ascontiguousarray(value).tofile(folder / f"{at}.out")
        outputs.append({"name": name, "dtype": str(value.dtype), "shape": list(value.shape)})
    return {"outputs": outputs, "seconds": seconds, "cpu": cpu, "peak_mib": peak_mib()}


def peak_mib() -> float:
    """The most memory that this process has held."""
    # the kernel's other count goes on from that of the process that started this one
    status = Path("/proc/self/status")
    if status.exists():
        held = next(line for line in status.read_text().splitlines() if "VmHWM" in line)
        return int(held.split()[1]) / 2**10
    import resource

    # in bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Serve until stdin ends."""
    name, path, threads = sys.argv[1:4]
    # what libraries print must not come between the lines
    answers, sys.stdout = sys.stdout, sys.stderr

    def say(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        version, run = PROGRAMS[name](path, int(threads))
    except Exception as error:  # whatever a runtime raises
        say({"error": f"{type(error).__name__}: {error}"})
        return
    say({"ready": version})
    for line in sys.stdin:
        try:
            say(batch(json.loads(line), run))
        except Exception as error:  # whatever a runtime raises
            say({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
