"""Reading a store in every way there is: as a whole, as a selection, image by image, by SQL."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from box_store.measure.figures import Figure, spend
from box_store.query import example_queries, run_sql
from box_store.selection.selecting import Selection, SelectionSpec, select
from box_store.store.reader import iter_units, read_boxes
from box_store.store.store import BoxStore

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_LOOKUPS = 20_000
_SQL_LOOKUPS = 30
_ONE_IMAGE = "SELECT * FROM {} WHERE teacher = $teacher AND image_id = $image_id"


def reading(store: BoxStore) -> Iterator[Figure]:
    """All boxes of a teacher at once, and unit by unit."""
    name = next(iter(store.teachers))
    spent, table = spend(lambda: read_boxes(store, name))
    rate = table.num_rows / spent.cpu_s / 1e6
    yield Figure("store", "read a teacher", rate, "M/CPU s", peak_mib=spent.peak_mib)
    del table
    spent, n_boxes = spend(lambda: sum(unit.boxes.num_rows for unit in iter_units(store, name)))
    rate = n_boxes / spent.cpu_s / 1e6
    yield Figure("store", "read its units in turn", rate, "M/CPU s", peak_mib=spent.peak_mib)


def selecting(store: BoxStore, n_boxes: int) -> tuple[Selection, list[Figure]]:
    """Build and open what a trainer reads."""
    group = "selection of all teachers"
    spent, path = spend(lambda: select(store, SelectionSpec()))
    rate = n_boxes / spent.cpu_s / 1e6
    opened, selection = spend(lambda: Selection.open(path))
    n_kept = sum(count for _, count in selection.counts().values())
    size = path.stat().st_size
    fused, _ = spend(lambda: select(store, SelectionSpec(combine="fused")))
    return selection, [
        Figure(group, "build", spent.cpu_s, "CPU s", peak_mib=spent.peak_mib),
        Figure(group, "build", rate, "M/CPU s"),
        Figure(group, "build, fused", fused.cpu_s, "CPU s", peak_mib=fused.peak_mib),
        Figure(group, "size on disk and in memory", size / 2**20, "MiB"),
        Figure(group, "boxes kept", n_kept / n_boxes, "of all"),
        Figure(group, "open", opened.wall_s * 1e3, "ms", peak_mib=opened.peak_mib),
    ]


def lookups(
    selection: Selection, connection: "DuckDBPyConnection", folder: Path
) -> Iterator[Figure]:
    """One teacher's boxes of a random image: by the selection, by SQL over the store, and by SQL
    over a DuckDB database that holds the same boxes sorted."""
    group = "one teacher's boxes of one image"
    teacher = selection.teachers[0]
    known = selection.of(teacher).image_ids
    draw = np.random.default_rng(0)
    asked = draw.choice(known, _LOOKUPS).tolist()
    took = _times(lambda key: selection.boxes(teacher, key), asked, time.perf_counter)
    median, slow = (float(value) for value in np.percentile(took, [50, 99]) * 1e6)
    yield Figure(group, "selection, 99 of 100 within", slow, "us")
    views = _sql_times(connection, "boxes", teacher, asked)
    yield _beside(group, median, "SQL over the store", views)
    database = folder / "boxes.duckdb"
    connection.execute(f"ATTACH '{database}' AS loaded")
    connection.execute("CREATE TABLE loaded.boxes AS FROM main.boxes ORDER BY image_id")
    tables = _sql_times(connection, "loaded.boxes", teacher, asked)
    connection.execute("DETACH loaded")
    yield _beside(group, median, "SQL over a database", tables)


def _sql_times(
    connection: "DuckDBPyConnection", table: str, teacher: str, asked: list[int]
) -> np.ndarray:
    query = _ONE_IMAGE.format(table)

    def look_up(image_id: int) -> object:
        return run_sql(connection, query, {"teacher": teacher, "image_id": image_id})

    look_up(asked[0])
    # milliseconds, in which a busy machine takes the processor away: only the CPU's count
    return _times(look_up, asked[:_SQL_LOOKUPS], time.process_time)


def _times(
    look_up: Callable[[int], object], asked: Sequence[int], clock: Callable[[], float]
) -> np.ndarray:
    took = np.empty(len(asked))
    for position, image_id in enumerate(asked):
        start = clock()
        look_up(image_id)
        took[position] = clock() - start
    return took


def _beside(group: str, median_us: float, peer: str, took: np.ndarray) -> Figure:
    peer_us = float(np.median(took)) * 1e6
    return Figure(group, "selection", median_us, "us", peer, peer_us, peer_us / median_us)


def queries(connection: "DuckDBPyConnection") -> Iterator[Figure]:
    """Every documented query, with its own defaults."""
    for name, query in example_queries().items():
        spent, _ = spend(lambda sql=query.sql: run_sql(connection, sql))
        yield Figure("example queries", name, spent.cpu_s, "CPU s", peak_mib=spent.peak_mib)
