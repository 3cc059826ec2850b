"""Photos and boxes that nobody took, for measuring how they are loaded."""

from pathlib import Path

import numpy as np
from PIL import Image

from box_store.boxes import to_xyxy
from box_store.categories import Categories, Category, ClassSpace
from box_store.coco.annotation_table import AnnotationTable, open_table, pack_names, write_table
from box_store.coco.annotations import CocoData
from box_store.selection.file import TeacherBoxes, write_selection
from box_store.selection.selecting import Selection
from student_train.config import TrainConfig
from student_train.data import CocoDetection, TrainTransform

TEACHERS = 3
N_PHOTOS = 32
SUFFIXES = (".jpg", ".jpeg", ".png")


def make_photos(folder: Path, n: int = N_PHOTOS, scale: int = 1) -> Path:
    """A folder of JPEG files of COCO's most frequent sizes over `scale`, with a photo's amount of
    detail.
    """
    root = folder / "photos"
    root.mkdir()
    generator = np.random.default_rng(0)
    for index in range(n):
        width, height = (640 // scale, 480 // scale) if index % 4 else (480 // scale, 640 // scale)
        coarse = generator.integers(0, 255, (height // 16, width // 16, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        grain = generator.normal(0, 12, (height, width, 3))
        pixels = (np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{index:03d}.jpg", quality=90)
    return root


def make_dataset(
    config: TrainConfig,
    root: Path,
    folder: Path,
    n_images: int | None = None,
    n_annotations: int | None = None,
    n_boxes: int = 50,
) -> CocoDetection:
    """The first 32 images of a folder, again and again if more are asked for, with boxes: 7 of
    ground truth an image unless `n_annotations` says how many in all, `n_boxes` of each of 3
    teachers. All boxes are mapped from files in `folder`, as those of a real data set are.
    """
    paths = sorted(path for path in root.iterdir() if path.suffix.lower() in SUFFIXES)[:N_PHOTOS]
    sizes = []
    for path in paths:
        with Image.open(path) as image:
            sizes.append(image.size)
    n = n_images or len(paths)
    total = n_annotations or 7 * n
    which = np.arange(n) % len(paths)
    widths, heights = np.array(sizes, np.int32)[which].T
    ids = np.arange(1, n + 1, dtype=np.int64)
    generator = np.random.default_rng(0)

    def boxes(offsets: np.ndarray) -> np.ndarray:
        owner = np.repeat(np.arange(n), np.diff(offsets))
        places = generator.random((len(owner), 4), np.float32)
        places = places * [0.5, 0.5, 0.4, 0.4] + [0, 0, 0.05, 0.05]
        return (places * np.stack([widths, heights] * 2, 1)[owner]).astype(np.float32)

    offsets = np.linspace(0, total, n + 1).astype(np.int64)
    table = AnnotationTable(
        ids,
        widths,
        heights,
        *pack_names([paths[index].name for index in which]),
        offsets,
        boxes(offsets),
        np.ones(total, np.int32),
        np.zeros(total, bool),
        np.ones(total, np.float32),
        np.zeros(n, bool),
    )
    write_table(folder / "annotations.arrow", table, {})
    names = [f"teacher{index}" for index in range(TEACHERS)]
    found = []
    for name in names:
        offsets = np.arange(n + 1, dtype=np.int64) * n_boxes
        corners = to_xyxy(boxes(offsets))
        scores = np.sort(generator.random((n, n_boxes), np.float32))[:, ::-1].ravel()
        ones = np.ones(n_boxes * n, np.int32)
        found.append((name, TeacherBoxes(ids, widths, heights, offsets, corners, scores, ones)))
    write_selection(folder / "boxes.arrow", {"teachers": names}, found)
    classes = Categories((Category(1, "thing"),))
    table = open_table(folder / "annotations.arrow")
    return CocoDetection(
        root,
        CocoData(root, "", classes, table, {}, {}),
        ClassSpace("raw", classes),
        TrainTransform(config.augment),
        selection=Selection.open(folder / "boxes.arrow"),
    )
