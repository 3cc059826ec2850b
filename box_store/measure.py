"""`python -m box_store.measure`: size and speed of a store on synthetic boxes, on this machine.

Coordinates are uniform, which is harder to compress than real detections.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from box_store.boxes import Boxes
from box_store.categories import Categories, Category
from box_store.coco_results import export_results
from box_store.locations import Location
from box_store.reader import read_boxes
from box_store.records import DatasetInfo, ImageRow, TeacherRecord, image_ids_sha256, split_units
from box_store.selection import Selection, SelectionSpec, select
from box_store.store import BoxStore

_UNIT = 1000
_WIDTH, _HEIGHT = 640, 480
_LOOKUPS = 20_000
_T = TypeVar("_T")


def main() -> None:
    """Print one figure a line."""
    parser = argparse.ArgumentParser(description="Size and speed of a store on synthetic boxes.")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--boxes", type=int, default=100, help="boxes an image")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="box-store-") as folder:
        measure(Path(folder), given.images, given.boxes)


def measure(folder: Path, n_images: int, n_boxes: int) -> None:
    """Write, read, select, look up and export `n_images` x `n_boxes` boxes; print what it took."""
    rng = np.random.default_rng(0)
    image_ids = list(range(1, n_images + 1))
    categories = Categories(tuple(Category(key, f"class {key}") for key in range(1, 81)))
    store = BoxStore.create(folder / "store", categories, DatasetInfo("synthetic", "", n_images))
    record = TeacherRecord(
        name="synthetic",
        adapter="measure",
        model="uniform",
        weights_sha256="",
        licence="MIT",
        class_map={},
        options={},
        image_ids_sha256=image_ids_sha256(image_ids),
        unit_size=_UNIT,
        n_images=n_images,
        n_units=-(-n_images // _UNIT),
    )
    store.register(record)
    units = [
        [_row(rng, image_id, n_boxes) for image_id in part]
        for part in split_units(image_ids, _UNIT)
    ]
    spent, _ = _timed(lambda: [store.write_unit("synthetic", *unit) for unit in enumerate(units)])
    table = read_boxes(store, "synthetic")
    total = table.num_rows
    boxes = store.path / "boxes" / "teacher=synthetic"
    size = sum(Path(str(path)).stat().st_size for path in boxes.glob("*.parquet"))
    print(f"boxes                  {total:,} in {n_images:,} images")
    print(f"size                   {size / total:.1f} bytes a box")
    print(f"write, exactly once    {total / spent / 1e6:.2f} M boxes/CPU s")
    spent, _ = _timed(lambda: read_boxes(store, "synthetic"))
    print(f"read into Arrow        {total / spent / 1e6:.2f} M boxes/CPU s")
    spent, path = _timed(lambda: select(store, SelectionSpec(score_floor=0)))
    print(f"select                 {total / spent / 1e6:.2f} M boxes/CPU s")
    spent, selection = _timed(lambda: Selection.open(path))
    print(f"open a selection       {spent * 1e3:.1f} CPU ms")
    _lookups(rng, selection, n_images)
    results = folder / "results.json"
    spent, _ = _timed(lambda: export_results(store, "synthetic", results))
    print(f"export as COCO JSON    {total / spent / 1e6:.2f} M boxes/CPU s")
    print(f"size as COCO JSON      {results.stat().st_size / total:.1f} bytes a box")
    try:
        _query(store.path, total)
    except ImportError:
        print("DuckDB                 not installed")


def _row(rng: np.random.Generator, image_id: int, n_boxes: int) -> ImageRow:
    corners = np.sort(rng.uniform(0, 1, (n_boxes, 2, 2)), axis=1) * [_WIDTH, _HEIGHT]
    boxes = Boxes(
        corners.reshape(-1, 4).astype(np.float32),
        rng.beta(0.5, 2, n_boxes).astype(np.float32),
        np.minimum(rng.zipf(1.5, n_boxes), 80).astype(np.int32),
        _WIDTH,
        _HEIGHT,
    )
    return ImageRow(image_id, f"{image_id:012d}.jpg", _WIDTH, _HEIGHT, boxes)


def _lookups(rng: np.random.Generator, selection: Selection, n_images: int) -> None:
    asked = rng.integers(1, n_images + 1, _LOOKUPS).tolist()
    for image_id in range(1, n_images + 1):  # map every page once
        selection.boxes("synthetic", image_id)
    took = np.empty(_LOOKUPS)
    for position, image_id in enumerate(asked):
        start = time.perf_counter()
        selection.boxes("synthetic", image_id)
        took[position] = time.perf_counter() - start
    median, slow = np.percentile(took, [50, 99]) * 1e6
    print(f"look an image up       {median:.1f} microseconds (99 of 100 within {slow:.1f})")


def _query(path: Location, total: int) -> None:
    from box_store.query import open_store, run_sql

    connection = open_store(path)
    sql = "SELECT category, count(*), avg(score) FROM boxes WHERE score > 0.3 GROUP BY 1"
    spent, _ = _timed(lambda: run_sql(connection, sql))
    print(f"filter and group (SQL) {total / spent / 1e6:.1f} M boxes/CPU s")
    one = "SELECT * FROM boxes WHERE image_id = $image_id"
    spent, _ = _timed(lambda: [run_sql(connection, one, {"image_id": i}) for i in range(1, 21)])
    print(f"one image by SQL       {spent / 20 * 1e3:.1f} CPU ms")
    connection.close()


def _timed(work: Callable[[], _T]) -> tuple[float, _T]:
    """CPU seconds of all threads: the same on a busy machine as on an idle one."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


if __name__ == "__main__":
    main()
