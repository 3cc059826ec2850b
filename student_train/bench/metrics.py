"""COCO metrics by every backend, side by side: CPU time, memory, and whether numbers are equal.

    python -m student_train.bench.metrics [--images 5000] [--boxes 100] [--out FILE]

Each backend runs in a process of its own, on the same drawn boxes; times are user and system CPU
seconds of the comparison alone, from arrays to metrics, memory what it adds to the process's peak.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from student_train.evaluation.coco_arrays import DetectionArrays, Truth
from student_train.evaluation.coco_metrics import BACKENDS, Metrics, coco_metrics
from student_train.runs.provenance import source_revision, versions

N_CLASSES = 80
OBJECTS_AN_IMAGE = 7


def draw(images: int, boxes: int, seed: int = 0) -> tuple[Truth, DetectionArrays]:
    """Objects and detections around them and anywhere, of 80 classes, scores with ties."""
    rng = np.random.default_rng(seed)
    n = images * OBJECTS_AN_IMAGE
    objects = np.concatenate([rng.uniform(0, 400, (n, 2)), rng.uniform(4, 220, (n, 2))], 1).round(2)
    classes = rng.integers(1, N_CLASSES + 1, n)
    truth = Truth(
        np.arange(images),
        tuple((i, f"class {i}") for i in range(1, N_CLASSES + 1)),
        np.repeat(np.arange(images), OBJECTS_AN_IMAGE),
        classes,
        objects,
        objects[:, 2:].prod(1),
        rng.random(n) < 0.01,
    )
    near = rng.integers(0, OBJECTS_AN_IMAGE, images * boxes)
    near += np.repeat(np.arange(images) * OBJECTS_AN_IMAGE, boxes)
    moved = objects[near] + rng.normal(0, 12, (len(near), 4))
    found = DetectionArrays(
        np.repeat(np.arange(images), boxes),
        np.where(rng.random(len(near)) < 0.8, classes[near], rng.integers(1, 81, len(near))),
        np.maximum(moved, 1).round(2),
        rng.random(len(near)).round(3),
    )
    return truth, found


def measure(backend: str, images: int, boxes: int) -> dict[str, Any]:
    """One backend in this process."""
    truth, found = draw(images, boxes)
    coco_metrics(*draw(2, 2), backend=backend)  # imports
    before, start = _peak_mib(), time.process_time()
    metrics = coco_metrics(truth, found, backend=backend)
    seconds = time.process_time() - start
    return {
        "backend": backend,
        "version": version(backend),
        "images": images,
        "boxes": images * boxes,
        "cpu_seconds": round(seconds, 2),
        "added_mib": round(_peak_mib() - before),
        "numbers": _numbers(metrics),
    }


def main(arguments: list[str] | None = None) -> int:
    """Print a line a backend; exit code 1 where numbers differ."""
    parser = argparse.ArgumentParser(prog="python -m student_train.bench.metrics")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--boxes", type=int, default=100, help="of each image")
    parser.add_argument("--backend", choices=BACKENDS, help="this one alone, as JSON")
    parser.add_argument("--out", type=Path, help="write the rows there as JSON")
    options = parser.parse_args(arguments)
    if options.backend:
        print(json.dumps(measure(options.backend, options.images, options.boxes)))
        return 0
    rows: list[dict[str, Any]] = []
    for backend in BACKENDS:
        command = [sys.executable, "-m", "student_train.bench.metrics", "--backend", backend]
        size = ["--images", str(options.images), "--boxes", str(options.boxes)]
        done = subprocess.run([*command, *size], capture_output=True, text=True, check=True)
        row = json.loads(done.stdout)
        numbers = np.array(row.pop("numbers"))
        first = rows[0] if rows else row | {"numbers": numbers}
        row["times_faster"] = round(first["cpu_seconds"] / max(row["cpu_seconds"], 1e-2), 1)
        row["times_less_memory"] = round(first["added_mib"] / max(row["added_mib"], 1), 1)
        row["numbers"] = len(numbers)
        row["largest_difference"] = float(np.abs(numbers - first["numbers"]).max())
        row |= {"versions": versions(), "source": source_revision()}
        print(
            f"{backend:18} {row['cpu_seconds']:8.2f} CPU s {row['added_mib']:6d} MiB  "
            f"{row['times_faster']:5.1f}x faster, {row['times_less_memory']:4.1f}x less memory, "
            f"{len(numbers)} numbers differ by {row['largest_difference']:.1e} at most",
            flush=True,
        )
        rows.append(row if rows else row | {"numbers": numbers})
    rows[0]["numbers"] = len(rows[0]["numbers"])
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")
    return int(any(row["largest_difference"] > 1e-9 for row in rows))


def _numbers(metrics: Metrics) -> list[float]:
    """All of them in a row, -1 for undefined."""
    found: list[float] = []

    def gather(value: Any) -> None:
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list | tuple):
            for part in value:
                gather(part)
        elif value is None or isinstance(value, int | float):
            found.append(-1.0 if value is None else float(value))

    gather([metrics.to_json(), metrics.curves.to_json(), metrics.recall_by_size])
    return found


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
