"""A student and the same model of transformers, on one core in turns: processor time and peak
memory of detecting in one image, and whether the boxes are equal.

python docs/benchmarks/inference.py [PRESET ...] [--rounds 7] [--json FILE]

Weights are random, with every parameter moved. Each is measured from pixels to logits and boxes,
as `predict` and `from_pretrained` leave them. Memory is that of a process that does nothing else
and imports nothing of the other's.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from box_store.measure.paired import in_turns
from student_train.bench.students import random_student
from student_train.config import as_plain
from student_train.export.transformers_folder import export_folder
from student_train.presets import load_preset
from student_train.runs.checkpoint import save_weights
from student_train.runs.run_folder import class_space_to_plain

sys.path.insert(0, str(Path(__file__).parent))
from detectors import LOADERS


def make(preset: str, folder: Path) -> None:
    """The same random student as a file of ours and as a folder of transformers."""
    student = random_student(load_preset(preset))
    config, space, model = student.config, student.class_space, student.model
    about = {"config": as_plain(config), "classes": class_space_to_plain(space)}
    save_weights(folder / "ours.safetensors", model.state_dict(), about)
    export_folder(student, folder / "theirs")


def image_of(preset: str) -> Tensor:
    """Noise of the evaluation size."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(1, 3, *load_preset(preset).augment.eval_size, generator=generator)


def agreement(mine: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """The share of queries that have a twin of equal logits (1e-3), and by how much the boxes of
    twins differ at most. Random weights choose queries by scores that nearly tie, in any order.
    """
    apart = (mine[0][0, :, None] - other[0][0, None]).abs().amax(-1)
    nearest, twin = apart.min(1)
    kept = nearest < 1e-3
    boxes = (mine[1][0] - other[1][0, twin]).abs().amax(-1)[kept]
    return float(kept.float().mean()), float(boxes.max()) if len(boxes) else float("nan")


@torch.inference_mode()
def compare(preset: str, rounds: int, folder: Path) -> dict[str, Any]:
    """Everything about one preset."""
    image = image_of(preset)
    detectors = {arm: load(folder) for arm, load in LOADERS.items()}
    same, apart = agreement(*(detect(image) for detect in detectors.values()))

    def cost(arm: str) -> float:
        begun = time.process_time()
        detectors[arm](image)
        return time.process_time() - begun

    spent = in_turns(rounds, tuple(LOADERS), cost)
    memory = {}
    for arm in LOADERS:
        size = [str(side) for side in image.shape[-2:]]
        line = [
            sys.executable,
            str(Path(__file__).with_name("detectors.py")),
            arm,
            str(folder),
            *size,
        ]
        done = subprocess.run(line, capture_output=True, text=True, check=True)
        memory[arm] = json.loads(done.stdout.splitlines()[-1])
    ratios = [b / a for a, b in zip(spent["ours"], spent["theirs"], strict=True)]
    return {
        "preset": preset,
        "size": list(image.shape[-2:]),
        "cpu_s": {arm: statistics.median(spent[arm]) for arm in LOADERS},
        "times_as_fast": statistics.median(ratios),
        "memory": memory,
        "queries_of_both": same,
        "boxes_differ": apart,
    }


def main() -> None:
    """Print a line for each preset."""
    parser = argparse.ArgumentParser()
    parser.add_argument("presets", nargs="*", default=["d-fine-n"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for preset in asked.presets:
        with TemporaryDirectory() as folder:
            make(preset, Path(folder))
            rows.append(row := compare(preset, asked.rounds, Path(folder)))
        ours, theirs = (row["memory"][arm]["peak_mib"] for arm in ("ours", "theirs"))
        print(
            f"{preset} at {row['size'][0]} px: ours {row['cpu_s']['ours']:.3f} CPU s, transformers "
            f"{row['cpu_s']['theirs']:.3f}: {row['times_as_fast']:.2f} times as fast; peak "
            f"{ours:.0f} and {theirs:.0f} MiB; {row['queries_of_both']:.1%} of the queries "
            f"in both, whose boxes differ by {row['boxes_differ']:.1e} at most",
            flush=True,
        )
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
