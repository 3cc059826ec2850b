"""How cost grows: CPU seconds of four sizes each, and the exponent of a power of the size that fits
them best, over images, boxes of an image, teachers and queries.

    python docs/benchmarks/growth.py [teachers] [selection] [loading] [matching] [--out FILE]

Fixed costs (opening files, tables of classes) are in the figures and make exponents smaller. What
the assignment of the matching takes grows faster than its queries and boxes, by its nature.
"""

import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from box_store.measure.__main__ import _write
from box_store.measure.synthetic import Law, write_annotations
from box_store.selection.selecting import SelectionSpec, select
from box_store.store.store import BoxStore
from student_train.bench import photos
from student_train.bench.step import BenchSpec, Step, match_at_once, supervised, synthetic_batch
from student_train.config import AugmentConfig
from student_train.data import EvalTransform
from student_train.presets import load_preset
from student_train.runs.provenance import source_revision, versions
from teach_detr.assessment.assessment import assess

Action = Callable[[], object]
Sizes = dict[str, tuple[int, ...]]
OF_STORES: Sizes = {
    "images": (500, 1000, 2000, 4000),
    "boxes": (15, 30, 60, 120),
    "teachers": (1, 2, 4, 8),
}
USUAL_STORE = {"images": 1000, "boxes": 30, "teachers": 2}
OF_LOADING: Sizes = {
    "images": (32, 64, 128, 256),
    "boxes": (25, 50, 100, 200),
    "teachers": (1, 2, 4, 8),
}
USUAL_LOADING = {"images": 64, "boxes": 50, "teachers": 2}
OF_MATCHING: Sizes = {
    "images": (2, 4, 8, 16),
    "boxes": (12, 25, 50, 100),
    "teachers": (1, 2, 4, 8),
    "queries": (75, 150, 300, 600),
}
USUAL_MATCHING = {"images": 4, "boxes": 25, "teachers": 2, "queries": 300}


def cpu_seconds(action: Action, rounds: int = 3) -> float:
    """The least of some rounds."""
    found = []
    for _ in range(rounds):
        start = time.process_time()
        action()
        found.append(time.process_time() - start)
    return min(found)


def exponent(sizes: tuple[int, ...], seconds: list[float]) -> float:
    """The slope of a line through the logarithms."""
    return float(np.polyfit([math.log(n) for n in sizes], [math.log(s) for s in seconds], 1)[0])


def store_of(folder: Path, images: int, boxes: int, teachers: int) -> BoxStore:
    """A synthetic store, and its annotations beside it."""
    place = folder / f"{images}-{boxes}-{teachers}"
    if not place.exists():
        place.mkdir()
        _write(place / "store", Law(images, boxes), teachers)
        write_annotations(Law(images), place / "annotations.json")
    return BoxStore.open(place / "store")


def teachers(folder: Path, size: dict[str, int]) -> Action:
    """What `teach-detr teachers` does, imports left out."""
    store = store_of(folder, **size)
    truth = Path(str(store.path)).parent / "annotations.json"
    return lambda: assess(store, truth, SelectionSpec(score_floor=0.0, top_k=100))


def selection(folder: Path, size: dict[str, int]) -> Action:
    """What a trainer reads, written anew."""
    store = store_of(folder, **size)

    def write() -> None:
        with tempfile.TemporaryDirectory() as cache:
            select(store, SelectionSpec(), Path(cache))

    return write


def loading(folder: Path, size: dict[str, int]) -> Action:
    """Samples of photos of 160 x 120 px with the boxes of their teachers, in this process."""
    place = folder / "-".join(map(str, ["photos", *size.values()]))
    place.mkdir(exist_ok=True)
    if not (place / "photos").exists():
        photos.make_photos(place, scale=4)
    photos.TEACHERS = size["teachers"]
    dataset = photos.make_dataset(
        load_preset("dino-micro"),
        place / "photos",
        place,
        n_images=size["images"],
        n_boxes=size["boxes"],
    )
    dataset.transform = EvalTransform(AugmentConfig(eval_short_side=96, eval_long_side=160))
    return lambda: [dataset[index] for index in range(len(dataset))]


def matching(folder: Path, size: dict[str, int]) -> Action:
    """All assignments of a step, costs included."""
    config = load_preset("dino-micro")
    model = replace(config.model, n_queries=size["queries"], top_k=50)  # type: ignore[call-arg]
    step = Step(replace(config, model=model, device="cpu", threads=1))
    # maps of 128 px have tokens enough for all queries
    spec = BenchSpec(256, 256, size["images"], 1, size["boxes"])
    draw = torch.Generator().manual_seed(0)
    batch = synthetic_batch(spec, size["teachers"], config.model.n_classes, draw)
    batch = batch.to(step.runtime.device, config.model.pixels)
    with torch.no_grad():
        output = step.forward(batch)
    supervisions = supervised(step, batch)
    return lambda: match_at_once(step, output, supervisions)


WORK = {
    "teachers": (teachers, OF_STORES, USUAL_STORE),
    "selection": (selection, OF_STORES, USUAL_STORE),
    "loading": (loading, OF_LOADING, USUAL_LOADING),
    "matching": (matching, OF_MATCHING, USUAL_MATCHING),
}


def rows(names: list[str], folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each work and what it grows with."""
    for name in names:
        make, grid, usual = WORK[name]
        for over, sizes in grid.items():
            seconds = []
            for n in sizes:
                action = make(folder, usual | {over: n})
                action()
                seconds.append(cpu_seconds(action, 1 if name == "teachers" else 3))
            yield {
                "work": name,
                "over": over,
                "sizes": sizes,
                "cpu_seconds": [round(s, 4) for s in seconds],
                "exponent": round(exponent(sizes, seconds), 2),
            }


def main(arguments: list[str]) -> None:
    """Print a line a row, and write them if asked."""
    out = Path(arguments.pop()) if "--out" in arguments else None
    names = [word for word in arguments if word != "--out"] or list(WORK)
    torch.set_num_threads(1)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(names, Path(folder)):
            print(row, flush=True)
            found.append(row)
            if out:
                about = {"versions": versions(), "source": source_revision()}
                out.write_text(json.dumps({"rows": found, **about}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
