"""What the loader delivers, beside what the step asks for."""

import itertools
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
from PIL import Image
from rich.table import Table

from box_store.annotation_table import AnnotationTable, pack_names
from box_store.categories import Categories, Category, ClassSpace
from box_store.coco_annotations import CocoData
from box_store.selection import Selection
from box_store.selection_file import TeacherBoxes, write_selection
from student_train.bench.step import BenchSpec, Step, provenance, synthetic_batch
from student_train.config import TrainConfig
from student_train.data import CocoDetection, TrainTransform, make_loader, prefetch, read_image
from student_train.data.coco import sample_generator
from student_train.data.transforms import Scene

_TEACHERS = 3
_IMAGES = 32


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
            caption=self.provenance["device"],
            title_justify="left",
        )
        table.add_column("loader")
        table.add_column("", justify="right")
        rows = (
            ("the loader delivers, images/s", f"{self.loader_images_per_second:.1f}"),
            ("the step asks for, images/s", f"{self.step_images_per_second:.1f}"),
            ("waiting for data", f"{100 * self.data_wait:.1f} %"),
            ("decoding, ms an image and core", f"{self.decode_ms:.2f}"),
            ("augmenting, ms an image and core", f"{self.transform_ms:.2f}"),
            (f"boxes of {_TEACHERS} teachers, ms per 16 images", f"{self.boxes_ms_per_16:.3f}"),
            ("MiB shipped an image", f"{self.shipped_mib:.2f}"),
            ("MiB before augmentation", f"{self.decoded_mib:.2f}"),
            ("padding", f"{100 * self.padding:.1f} %"),
            ("different shapes of batches", str(self.shapes)),
        )
        for name, value in rows:
            table.add_row(name, value)
        return table


def bench_loader(config: TrainConfig, spec: BenchSpec, folder: Path | None = None) -> LoaderResult:
    """Measure loading from `folder` (its images, at most 32 of them), or from made up photos."""
    with TemporaryDirectory() as temporary:
        root = _photos(Path(temporary)) if folder is None else folder
        dataset = _dataset(config, root, Path(temporary))
        decode, transform = _single_core(dataset)
        loader = make_loader(
            dataset,
            spec.batch,
            shuffle=True,
            workers=config.data.workers,
            aspect_ratios=config.data.aspect_groups,
            pad_to=config.data.pad_to,
        )
        step = Step(config)
        generator = torch.Generator().manual_seed(0)
        model_batch = synthetic_batch(spec, _TEACHERS, config.model.n_classes, generator)
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


def _photos(folder: Path) -> Path:
    """32 JPEG files of COCO's most frequent sizes, with a photo's amount of detail."""
    root = folder / "photos"
    root.mkdir()
    generator = np.random.default_rng(0)
    for index in range(_IMAGES):
        width, height = (640, 480) if index % 4 else (480, 640)
        coarse = generator.integers(0, 255, (height // 16, width // 16, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        grain = generator.normal(0, 12, (height, width, 3))
        pixels = (np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{index:03d}.jpg", quality=90)
    return root


def _dataset(config: TrainConfig, root: Path, folder: Path) -> CocoDetection:
    """Images of a folder with made up boxes: 7 of ground truth, 50 of each of 3 teachers."""
    suffixes = (".jpg", ".jpeg", ".png")
    paths = sorted(path for path in root.iterdir() if path.suffix.lower() in suffixes)[:_IMAGES]
    sizes = []
    for path in paths:
        with Image.open(path) as image:
            sizes.append(image.size)
    widths, heights = np.array(sizes, np.int32).T
    n, ids = len(paths), np.arange(1, len(paths) + 1, dtype=np.int64)
    generator = np.random.default_rng(0)

    def boxes(each: int) -> np.ndarray:
        places = generator.random((n * each, 4)) * [0.5, 0.5, 0.4, 0.4] + [0, 0, 0.05, 0.05]
        return (places * np.repeat(np.stack([widths, heights] * 2, 1), each, 0)).astype(np.float32)

    classes = Categories((Category(1, "thing"),))
    table = AnnotationTable(
        ids,
        widths,
        heights,
        *pack_names([path.name for path in paths]),
        np.arange(n + 1, dtype=np.int64) * 7,
        boxes(7),
        np.ones(7 * n, np.int32),
        np.zeros(7 * n, bool),
        np.ones(7 * n, np.float32),
    )
    names = [f"teacher{index}" for index in range(_TEACHERS)]
    path = folder / "boxes.arrow"
    found = []
    for name in names:
        xywh = boxes(50)
        corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)
        scores = np.sort(generator.random((n, 50)).astype(np.float32))[:, ::-1].ravel()
        offsets = np.arange(n + 1, dtype=np.int64) * 50
        ones = np.ones(50 * n, np.int32)
        found.append((name, TeacherBoxes(ids, widths, heights, offsets, corners, scores, ones)))
    write_selection(path, {"teachers": names}, found)
    coco = CocoData(root, "", classes, table, {}, {})
    return CocoDetection(
        root,
        coco,
        ClassSpace("raw", classes),
        TrainTransform(config.augment),
        selection=Selection.open(path),
    )
