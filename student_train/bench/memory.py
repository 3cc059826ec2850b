"""Whether loader processes grow: their own memory, epoch by epoch, over a data set of COCO's size.

A process that touches a mapped file has its pages in its resident size, though all processes share
them; so what counts is what a process has changed and nobody else holds (`Private_Dirty`).
"""

import itertools
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from student_train.bench.photos import make_dataset, make_photos
from student_train.config import TrainConfig
from student_train.data import make_loader

EPOCHS = 6
# COCO's train2017
IMAGES, ANNOTATIONS = 118_287, 860_001


def worker_memory(
    config: TrainConfig,
    batch: int,
    steps: int,
    images: int = IMAGES,
    annotations: int = ANNOTATIONS,
    workers: int | None = None,
) -> list[float]:
    """MiB that a loader process owns after each of 6 epochs, the mean over the processes; of an
    epoch the first `steps` batches are loaded. Empty without processes, or where the system does
    not tell.
    """
    workers = config.data.workers if workers is None else workers
    if not workers:
        return []
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        root = make_photos(folder, scale=4)
        dataset = make_dataset(config, root, folder, images, annotations, n_boxes=10)
        before = {process.pid for process in multiprocessing.active_children()}
        loader = make_loader(dataset, batch, shuffle=True, workers=workers)
        found = []
        for epoch in range(EPOCHS):
            for _ in itertools.islice(loader.epoch(epoch), steps):
                pass
            mine = [p.pid for p in multiprocessing.active_children() if p.pid not in before]
            found.append(_mean([own_mib(pid) for pid in mine if pid is not None]))
    return [] if None in found else [each for each in found if each is not None]


def own_mib(pid: int) -> float | None:
    """What a process alone holds in memory and has written to; None where /proc does not say."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    kib = [int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:")]
    return sum(kib) / 1024 if kib else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
