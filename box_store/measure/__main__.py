"""Size, speed and memory of a store of synthetic boxes, beside COCO JSON, plain Parquet and SQL.

python -m box_store.measure             5,000 images: a minute or two
python -m box_store.measure --full      as many as COCO has, three teachers, 20 million boxes
python -m box_store.measure --json      the figures as JSON, nothing else on stdout
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from box_store.coco.categories80 import COCO_CATEGORIES
from box_store.errors import TeachDetrError
from box_store.measure.access import lookups, queries, reading, selecting
from box_store.measure.figures import Figure, Spent, machine, spend, table
from box_store.measure.formats import compare_formats
from box_store.measure.synthetic import (
    COCO_IMAGES,
    UNIT,
    Law,
    as_given,
    detections,
    write_annotations,
)
from box_store.query import open_store
from box_store.store.parts import part_path, read_part
from box_store.store.records import DatasetInfo, TeacherRecord, image_ids_sha256
from box_store.store.store import BoxStore

_IMAGES = 5000
# boxes whose formats are compared
_SAMPLE = 1_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    options = _parser().parse_args(arguments)
    law = Law(COCO_IMAGES if options.full else options.images, options.boxes)
    log = sys.stderr if options.json else sys.stdout
    figures: list[Figure] = []
    source = machine()
    print("  ".join(f"{key} {value}" for key, value in source.items()), file=log)
    try:
        with tempfile.TemporaryDirectory(prefix="box-store-", dir=options.folder) as folder:
            # tables of annotations are kept there too, not in the user's cache
            os.environ["TEACH_DETR_CACHE"] = str(Path(folder) / "cache")
            for figure in measure(Path(folder), law, options.teachers, options.threads):
                figures.append(figure)
                print(".", end="", file=sys.stderr, flush=True)
    except (TeachDetrError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(file=sys.stderr)
    document = {"machine": source, "figures": [asdict(figure) for figure in figures]}
    text = json.dumps(document, indent=1)
    if options.out is not None:
        options.out.write_text(text + "\n")
    print(text if options.json else table(figures))
    return 0


def measure(folder: Path, law: Law, n_teachers: int, threads: int | None) -> Iterator[Figure]:
    """Write a store of synthetic boxes into `folder` and use it in every way there is."""
    store, written, n_boxes = _write(folder / "store", law, n_teachers)
    files = (folder / "store").rglob("*.parquet")
    n_bytes = sum(path.stat().st_size for path in files)
    yield Figure("store", "images", law.n_images, "")
    yield Figure("store", "boxes", n_boxes, f"of {n_teachers} teachers")
    yield Figure("store", "size, all files", n_bytes / n_boxes, "B a box")
    rate = n_boxes / written.cpu_s / 1e6
    yield Figure("store", "write: check, round, flush", rate, "M/CPU s", peak_mib=written.peak_mib)
    yield from reading(store)
    yield from compare_formats(_sample(store, law), folder)
    selection, figures = selecting(store, n_boxes)
    yield from figures
    annotations = folder / "annotations.json"
    n_objects = write_annotations(law, annotations)
    yield Figure("example queries", "annotated objects", n_objects, "")
    first, connection = spend(lambda: open_store(store.path, annotations, threads=threads))
    connection.close()
    again, connection = spend(lambda: open_store(store.path, annotations, threads=threads))
    for name, spent in (("open with annotations", first), ("open again", again)):
        yield Figure("example queries", name, spent.cpu_s, "CPU s", peak_mib=spent.peak_mib)
    yield from queries(connection)
    yield from lookups(selection, connection, folder)
    connection.close()


def _write(path: Path, law: Law, n_teachers: int) -> tuple[BoxStore, Spent, int]:
    """A store of the law, what writing it took (drawing left out), and its number of boxes."""
    info = DatasetInfo("synthetic", "", law.n_images)
    store = BoxStore.create(path, COCO_CATEGORIES, info)
    names = [f"teacher{number}" for number in range(n_teachers)]
    for name in names:
        store.register(_record(name, law))
    wall = cpu = 0.0
    peaks: list[float] = []
    n_boxes = 0
    for unit in range(law.n_units):
        for number, name in enumerate(names):
            rows = detections(law, unit, number)
            n_boxes += sum(len(row.boxes) for row in rows if row.boxes is not None)
            spent, _ = spend(lambda u=unit, n=name, r=rows: store.write_unit(n, u, r))
            wall, cpu = wall + spent.wall_s, cpu + spent.cpu_s
            peaks += [] if spent.peak_mib is None else [spent.peak_mib]
    return store, Spent(wall, cpu, max(peaks, default=None)), n_boxes


def _record(name: str, law: Law) -> TeacherRecord:
    return TeacherRecord(
        name=name,
        adapter="measure",
        model="synthetic",
        weights_sha256="",
        licence="MIT",
        class_map={},
        options={},
        image_ids_sha256=image_ids_sha256(range(1, law.n_images + 1)),
        unit_size=UNIT,
        n_images=law.n_images,
        n_units=law.n_units,
    )


def _sample(store: BoxStore, law: Law) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Units of all teachers, as given and as stored, until they hold a million boxes together."""
    n_boxes = 0
    for unit in range(law.n_units):
        for number, (name, record) in enumerate(store.teachers.items()):
            stored = read_part(part_path(store.path, "boxes", name, unit), "boxes", record)
            n_boxes += stored.num_rows
            yield as_given(detections(law, unit, number)), stored
        if n_boxes >= _SAMPLE:
            return


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m box_store.measure",
        description="Size, speed and memory of a store of synthetic boxes, beside alternatives.",
    )
    add = parser.add_argument
    add("--full", action="store_true", help=f"COCO's size: {COCO_IMAGES:,} images")
    add("--images", type=int, default=_IMAGES, help=f"how many; default {_IMAGES}")
    add("--boxes", type=float, default=Law.boxes_per_image, help="a teacher and image, on average")
    add("--teachers", type=int, default=3)
    add("--threads", type=int, help="of DuckDB; default: as many as it takes")
    add("--folder", type=Path, help="where to write (a full store takes 1 GB); default: TMPDIR")
    add("--json", action="store_true", help="print the figures as JSON, nothing else")
    add("--out", type=Path, metavar="FILE", help="write the figures to FILE as JSON too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
