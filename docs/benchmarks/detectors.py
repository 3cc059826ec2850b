"""A student and transformers' same model, each with no more imports than its users need.

python docs/benchmarks/detectors.py ours|theirs FOLDER HEIGHT WIDTH

prints as JSON the MiB that this process holds once its model is loaded, and at most while it
detects in one image. `inference.py` makes the folder.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

Detect = Callable[[Tensor], tuple[Tensor, Tensor]]


def ours(folder: Path) -> Detect:
    """What `predict` runs."""
    from student_train.models.fusing import make_ready
    from student_train.runs.trained import load_student

    student = load_student(folder / "ours.safetensors").model
    make_ready(student, torch.device("cpu"))

    def detect(images: Tensor) -> tuple[Tensor, Tensor]:
        mask = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool)
        last = student(images, mask).last
        return last.logits, last.boxes

    return detect


def theirs(folder: Path) -> Detect:
    """What `from_pretrained` gives."""
    from transformers import AutoModelForObjectDetection

    model = AutoModelForObjectDetection.from_pretrained(folder / "theirs").eval()

    def detect(images: Tensor) -> tuple[Tensor, Tensor]:
        found = model(images)
        return found.logits, found.pred_boxes

    return detect


LOADERS: dict[str, Callable[[Path], Detect]] = {"ours": ours, "theirs": theirs}


@torch.inference_mode()
def main() -> None:
    """Measure this process."""
    arm, folder, height, width = sys.argv[1:]
    torch.set_num_threads(1)
    detect = LOADERS[arm](Path(folder))
    loaded = mebibytes("VmRSS")
    detect(torch.rand(1, 3, int(height), int(width)))
    print(json.dumps({"peak_mib": mebibytes("VmHWM"), "loaded_mib": loaded}))


def mebibytes(kind: str) -> float:
    """What Linux says of this program alone; `ru_maxrss` begins with that of its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith(f"{kind}:"))


if __name__ == "__main__":
    main()
