"""What the loader delivers, beside what the step asks for."""

import itertools
import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.table import Table

from student_train.bench.memory import worker_memory
from student_train.bench.photos import TEACHERS, make_dataset, make_photos
from student_train.bench.step import BenchSpec, Step, provenance, synthetic_batch
from student_train.config import TrainConfig
from student_train.data import CocoDetection, make_loader, prefetch, read_image
from student_train.data.coco import sample_generator
from student_train.data.transforms import Scene


@dataclass(frozen=True)
class LoaderResult:
    """A loader's pace; milliseconds are of one core and one image unless they say otherwise."""

    preset: str
    data: str
    workers: int
    batch: int
    decode_ms: float
    transform_ms: float
    boxes_ms_per_16: float
    """looking up the boxes of 3 teachers for 16 images"""
    shipped_mib: float
    """bytes that an image takes between processes, padding included"""
    decoded_mib: float
    """bytes that it would take before augmentation"""
    padding: float
    """share of the pixels of a batch that are padding"""
    shapes: int
    """different shapes among the batches"""
    loader_images_per_second: float
    step_images_per_second: float
    data_wait: float
    """share of the time that such a run waits for data, measured over whole steps"""
    worker_mib: list[float]
    """memory that a loader process owns after each epoch over as many images and annotations as
    COCO has, see `worker_memory`"""
    provenance: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """One record."""
        found = asdict(self)
        return {"kind": "loader", **{k: v for k, v in found.items() if k != "provenance"}} | (
            self.provenance
        )

    def table(self) -> Table:
        """A line a number."""
        table = Table(
            title=f"{self.preset}, {self.data}, batches of {self.batch}, {self.workers} workers",
            caption=f"{self.verdict()}. {self.provenance['device']}",
            title_justify="left",
        )
        table.add_column("loader")
        table.add_column("", justify="right")
        rows = (
            ("the loader delivers, images/s", f"{self.loader_images_per_second:.1f}"),
            ("the step asks for, images/s", f"{self.step_images_per_second:.1f}"),
            ("share of a run spent waiting for data", f"{100 * self.data_wait:.1f} %"),
            ("cores that loading for this step keeps busy", f"{self.cores:.1f}"),
            ("decoding, ms an image and core", f"{self.decode_ms:.2f}"),
            ("augmenting, ms an image and core", f"{self.transform_ms:.2f}"),
            (f"boxes of {TEACHERS} teachers, ms per 16 images", f"{self.boxes_ms_per_16:.3f}"),
            ("MiB shipped an image", f"{self.shipped_mib:.2f}"),
            ("MiB before augmentation", f"{self.decoded_mib:.2f}"),
            ("padding", f"{100 * self.padding:.1f} %"),
            ("different shapes of batches", str(self.shapes)),
            ("MiB a loader process owns, by epoch", self._memory()),
        )
        for name, value in rows:
            table.add_row(name, value)
        return table

    @property
    def cores(self) -> float:
        """How many cores decode and augment at the pace of the step."""
        return self.step_images_per_second * (self.decode_ms + self.transform_ms) / 1e3

    def verdict(self) -> str:
        """Whether the loader keeps up, and what to do if not."""
        if not self.workers:
            return "no loader processes: steps wait while their images are loaded (data.workers)"
        if self.loader_images_per_second >= self.step_images_per_second:
            return "the loader keeps up with the step"
        return (
            f"the loader is slower than the step, which needs about {math.ceil(self.cores)} loader "
            "processes on cores of their own (data.workers)"
        )

    def _memory(self) -> str:
        return " ".join(f"{each:.1f}" for each in self.worker_mib) or "-"


def bench_loader(config: TrainConfig, spec: BenchSpec, folder: Path | None = None) -> LoaderResult:
    """Measure loading from `folder` (its images, at most 32 of them), or from made up photos."""
    with TemporaryDirectory() as temporary:
        root = make_photos(Path(temporary)) if folder is None else folder
        dataset = make_dataset(config, root, Path(temporary))
        decode, transform = _single_core(dataset)
        loader = make_loader(
            dataset,
            spec.batch,
            shuffle=True,
            workers=config.data.workers,
            aspect_ratios=config.data.aspect_groups,
            pad_to=math.lcm(config.data.pad_to, config.model.side_multiple),
        )
        step = Step(config)
        generator = torch.Generator().manual_seed(0)
        model_batch = synthetic_batch(spec, TEACHERS, config.model.n_classes, generator)
        step(model_batch)
        alone = statistics.median(
            step.seconds(lambda: step(model_batch)) for _ in range(max(2, spec.steps // 2))
        )
        # the first epoch starts the processes
        batches = list(loader.epoch(0))
        started = time.perf_counter()
        n_images = sum(len(batch) for epoch in (1, 2) for batch in loader.epoch(epoch))
        delivered = n_images / (time.perf_counter() - started)
        waited, total = _waiting(step, loader, spec.steps)
        pixels = sum(batch.mask.numel() for batch in batches)
        return LoaderResult(
            config.preset,
            "photos of COCO's sizes, made up" if folder is None else str(folder.name),
            config.data.workers,
            spec.batch,
            1e3 * decode,
            1e3 * transform,
            1e3 * _box_seconds(dataset),
            sum(sum(t.nbytes for t in batch.tensors) for batch in batches)
            / sum(len(batch) for batch in batches)
            / 2**20,
            float((3.0 * dataset.widths * dataset.heights).mean()) / 2**20,
            sum(int(batch.mask.sum()) for batch in batches) / pixels,
            len({batch.images.shape for batch in batches}),
            delivered,
            spec.batch / alone,
            waited / total,
            worker_memory(config, spec.batch, 20 * spec.steps),
            provenance(step.runtime),
        )


def _waiting(step: Step, loader: Any, n_steps: int) -> tuple[float, float]:
    """Seconds waited for data, and in all, over real steps."""
    epochs = (loader.epoch(epoch) for epoch in itertools.count(3))
    batches = prefetch(itertools.chain.from_iterable(epochs), step.runtime.device)
    step(next(batches))
    step.wait()
    waited, started = 0.0, time.perf_counter()
    for _ in range(n_steps):
        before = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - before
        step(batch)
    step.wait()
    return waited, time.perf_counter() - started


def _single_core(dataset: CocoDetection) -> tuple[float, float]:
    """Seconds of decoding and of augmenting an image."""
    decoding, augmenting = [], []
    n = min(24, len(dataset))
    with _one_thread():
        for index in range(n):
            path = dataset.root / dataset.file_name(index)
            started = time.perf_counter()
            image = read_image(path)
            decoded = time.perf_counter()
            scene = Scene.start(image, torch.zeros(1, 4) + torch.tensor([1.0, 1.0, 20.0, 20.0]))
            dataset.transform(scene, sample_generator(0, 0, index))
            decoding.append(decoded - started)
            augmenting.append(time.perf_counter() - decoded)
    return statistics.median(decoding), statistics.median(augmenting)


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in a loader process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _box_seconds(dataset: CocoDetection) -> float:
    """Seconds of looking up all teachers' boxes of 16 images, the median of many."""
    assert dataset.selection is not None
    generator = np.random.default_rng(0)
    found = []
    for _ in range(50):
        ids = generator.choice(dataset.image_ids, 16).tolist()
        started = time.perf_counter()
        for image_id in ids:
            for name in dataset.teachers:
                dataset.selection.boxes(name, image_id)
        found.append(time.perf_counter() - started)
    return statistics.median(found)
