"""A whole training step on one core, CPU seconds, in turns: attention in plain torch and compiled,
float32 and bf16 autocast.

python docs/benchmarks/cpu_step.py [PRESET] [SIDE] [ROUNDS]
"""

import json
import sys
from dataclasses import replace
from typing import Any

import torch

from student_train.bench.step import BenchSpec, Step, provenance, synthetic_batch
from student_train.presets import load_preset

WAYS = (("torch", "off"), ("auto", "off"), ("torch", "bf16"), ("auto", "bf16"))
"""attention and precision; the first is what there was before attention was compiled"""


def make(preset: str, attention: str, amp: Any) -> Step:
    """One way of making the step."""
    config = load_preset(preset)
    model = replace(config.model, attention_backend=attention)  # type: ignore[call-arg]
    return Step(replace(config, model=model, device="cpu", amp=amp, threads=1))


def main(preset: str, side: int, rounds: int) -> None:
    """Print the least of each way, and its ratio to the first, as JSON."""
    spec = BenchSpec(side, side, 2, rounds, 50)
    steps = {way: make(preset, *way) for way in WAYS}
    batches = {
        way: synthetic_batch(spec, 0, step.config.model.n_classes, torch.Generator().manual_seed(0))
        for way, step in steps.items()
    }
    best = dict.fromkeys(WAYS, float("inf"))
    for number in range(rounds + 1):
        for way, step in steps.items():
            cost = step.cost(lambda step=step, way=way: step(batches[way]))
            # the first compiles
            best[way] = min(best[way], cost.cpu if number else float("inf"))
    first = best[WAYS[0]]
    rows = [
        {"attention": way[0], "amp": way[1], "cpu_seconds": s, "times_faster": first / s}
        for way, s in best.items()
    ]
    about = provenance(steps[WAYS[1]].runtime)
    print(json.dumps({"preset": preset, "side": side, "batch": 2, "rows": rows, **about}, indent=1))


if __name__ == "__main__":
    given = sys.argv[1:]
    main(
        given[0] if given else "dino-r50-4scale",
        int(given[1]) if len(given) > 1 else 256,
        int(given[2]) if len(given) > 2 else 3,
    )
