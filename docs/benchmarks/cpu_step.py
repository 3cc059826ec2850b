"""A DINO-R50 step on a CPU (256 px, batch 2): numba or plain torch attention, fp32 or bf16.

    python docs/benchmarks/cpu_step.py [--steps 3] [--out FILE]

CPU seconds of a whole step, forward, losses, backward and optimiser, in turns in one process.
"""

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path

import torch

from detr_kernels.deform_attn import backend
from student_train.bench.step import BenchSpec, Step, synthetic_batch
from student_train.config import resolve
from student_train.presets import load_preset
from student_train.runs.provenance import source_revision, versions

SIDES = (("torch", "off"), ("numba", "off"), ("torch", "bf16"), ("numba", "bf16"))


def main() -> None:
    """Print a line a side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    spec = BenchSpec(256, 256, 2, options.steps, 50)
    config = resolve(load_preset("dino-r50-4scale")).config
    config = replace(config, device="cpu", threads=1, amp="off")
    batch = synthetic_batch(spec, 0, config.model.n_classes, torch.Generator().manual_seed(0))
    step = Step(config)
    found = backend._import_numba()
    if found:
        raise SystemExit(found)
    times: dict[tuple[str, str], list[float]] = {side: [] for side in SIDES}
    for turn in range(options.steps + 1):
        for attention, amp in SIDES:
            # what resolve asks: whether numba is there
            backend._import_numba = lambda a=attention: "" if a == "numba" else "not asked for"
            dtype = torch.bfloat16 if amp == "bf16" else torch.float32
            with torch.autocast("cpu", dtype, enabled=amp == "bf16"):
                cost = step.cost(lambda: step(batch))
            if turn:
                times[attention, amp].append(cost.cpu)
    rows = []
    first = times[SIDES[0]]
    for (attention, amp), spent in times.items():
        ratio = statistics.median(a / b for a, b in zip(first, spent, strict=True))
        middle = statistics.median(spent)
        name = "bf16" if amp == "bf16" else "fp32"
        print(f"{attention:6} {name}  {middle:6.2f} CPU s a step, {ratio:.2f} times faster")
        rows.append({"attention": attention, "amp": name, "cpu_s": middle, "ratio": ratio})
    if options.out:
        content = {"rows": rows, "versions": versions(), "source": source_revision()}
        options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
