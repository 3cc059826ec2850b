"""SQL over a store: DuckDB views and macros, and selections made by a query. Needs DuckDB.

Views and tables: boxes, images, runs, teachers, calibrations, categories and, with annotations,
truth.
Macros: iou, overlap_area and, with annotations, matched, judged and on_objects. `docs/store.md`
lists their columns.
A connection is not fork-safe: never hand it to a loader worker.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from box_store.calibration.score_map import need_calibration, read_calibration
from box_store.coco.annotations import CocoData
from box_store.errors import DataError, FormatError, StoreError, TeachDetrError, UsageError, nearest
from box_store.identity import of_split, seen_by
from box_store.places.locations import Location, RemotePath, location
from box_store.selection.file import content_key, write_selection
from box_store.selection.selecting import licence_admitted
from box_store.sql.examples import (
    ExampleQuery,
    asks_truth,
    example_queries,
    example_query,
    parse_query,
    without_comments,
)
from box_store.sql.ground_truth import parts_of, shown_by
from box_store.sql.selecting import REQUIRED, covered_images, grouped_by_teacher
from box_store.sql.views import make_views
from box_store.store.reader import known_images
from box_store.store.records import TeacherRecord
from box_store.store.store import BoxStore

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = [
    "ExampleQuery",
    "example_queries",
    "example_query",
    "open_store",
    "parse_query",
    "run_sql",
    "select_sql",
]


def open_store(
    path: Location,
    annotations: Location | Sequence[Location] | None = None,
    *,
    threads: int | None = None,
    licences: Sequence[str] = (),
    deny_licences: Sequence[str] = (),
    split: str | None = None,
) -> "DuckDBPyConnection":
    """A DuckDB connection, in memory, with views over the committed units of a store.

    The views see the units committed at this moment. With `annotations`, a COCO file or one for
    each of several splits, there are also the table `truth`, shaped as `boxes` plus truth_id and
    iscrowd, and the macro `matched`; an image is joined with its own split's, whatever its id.
    licences, deny_licences: patterns as in `SelectionSpec`; of a teacher that they do not admit
    nothing is visible. The connection only reads the store; a large annotation file is kept as a
    table in the user's cache, where the next connection finds it.

    split: show only this split. Of a store of splits whose image ids collide the views show the
    split that the annotations are of, and without annotations all, for queries that ask for it.

    Raises StoreError, FormatError (naming a truncated, foreign or newer file), DataError, and
    UsageError where DuckDB is missing.
    """
    duckdb = _duckdb()
    store = BoxStore.open(path)
    if split is not None:
        store = of_split(store, split)
    places: Sequence[Location] = (
        [annotations] if isinstance(annotations, Path | RemotePath) else annotations or ()
    )
    cocos = [_annotations(place) for place in places]
    connection = duckdb.connect(config={} if threads is None else {"threads": threads})
    try:
        parts = parts_of(store, cocos)
        shown = shown_by(store, parts)
        make_views(connection, shown, _admitted(store, licences, deny_licences), parts)
    except duckdb.Error as error:
        connection.close()
        raise _explained(error, "") from error
    except BaseException:
        connection.close()
        raise
    return connection


def run_sql(
    connection: "DuckDBPyConnection", sql: str, parameters: Mapping[str, Any] | None = None
) -> pa.Table:
    """Run one or more statements and return the rows of the last one.

    `$name` in the text is bound, never pasted: to `parameters`, else to the default that a comment
    at the head of the text declares (`-- $name = value`). Raises UsageError for faulty SQL, for a
    parameter that is missing or not used, and where a query needs annotations that were not
    attached; FormatError for a damaged file; DataError for `image_id` without `split` in a store
    where several images have one id.
    """
    duckdb = _duckdb()
    values = dict(parse_query("the query", sql).parameters) | dict(parameters or {})
    _check_splits(connection, sql)
    try:
        statements = connection.extract_statements(sql)
        used = {name for statement in statements for name in statement.named_parameters}
        _check_parameters(used, values, set(parameters or {}))
        table = pa.table({})
        for statement in statements:
            bound = {name: values[name] for name in statement.named_parameters}
            relation = connection.sql(statement, params=bound or None)
            table = pa.table({}) if relation is None else relation.to_arrow_table()
        return table
    except duckdb.Error as error:
        raise _explained(error, sql) from error


def select_sql(
    path: Location,
    query: str,
    out: Path,
    *,
    annotations: Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    images: str | None = None,
    licences: Sequence[str] = (),
    deny_licences: Sequence[str] = (),
    split: str | None = None,
) -> Path:
    """Write the selection that a query describes, for `Selection.open`; returns `out`.

    query: must yield image_id, category_id, score, x1, y1, x2, y2, and may yield teacher (any name;
    without it all boxes are one set called `selected`). images: a second query that yields the
    image_id (and may yield the teacher) of every image the boxes speak for, including those without
    any; by default all images that the teacher saw successfully (a name that is no teacher of the
    store: that any teacher saw). licences, deny_licences, split: as in `open_store`; of splits
    whose ids collide, one has to be chosen, by `split` or by annotations.

    Raises UsageError (faulty SQL, missing columns), DataError (values that are no boxes) and
    StoreError.
    """
    store = BoxStore.open(path)
    if split is not None:
        store = of_split(store, split)
    if annotations is not None:
        store = seen_by(store, _annotations(annotations))
    # before any query: an id must be one image
    names = {image.id: image.file_name for image in known_images(store)}
    records = _admitted(store, licences, deny_licences)
    if store.teachers and not records:
        found = sorted({record.licence for record in store.teachers.values()})
        raise UsageError(f"no teacher of {path} has a licence that is admitted: {', '.join(found)}")
    connection = open_store(
        path, annotations, licences=licences, deny_licences=deny_licences, split=split
    )
    try:
        rows = run_sql(connection, query, parameters)
        _need(rows, REQUIRED, "the selecting query")
        calibrations = _calibrations(store, records, query, rows)
        sizes = run_sql(connection, "SELECT image_id, width, height FROM images WHERE width > 0")
        if images is None:
            seen = run_sql(connection, "SELECT teacher, image_id FROM runs WHERE status = 'ok'")
        else:
            seen = run_sql(connection, images)
            _need(seen, ("image_id",), "the query for images")
    finally:
        connection.close()
    covered = covered_images(seen, rows, exact=images is not None)
    by_teacher = grouped_by_teacher(rows, covered, sizes, store.categories)
    # a set of another name may hold boxes of any teacher
    named = all(name in records for name in by_teacher)
    metadata = {
        "teachers": list(by_teacher),
        "sources": {
            name: {"fingerprint": record.fingerprint, "licence": record.licence}
            for name, record in records.items()
            if not named or name in by_teacher
        },
        "calibrations": calibrations,
        "asked": {"sql": query, "images": images, "parameters": dict(parameters or {})},
        "key": content_key(by_teacher),
        "splits": sorted(store.shown or ()),
    }
    write_selection(location(out), metadata, by_teacher.items(), names)
    return Path(out)


def _annotations(place: Location) -> CocoData:
    # the readers of all forms, which a query without annotations does not need
    from box_store.forms.opening import annotations_of

    return annotations_of(place)


def _admitted(
    store: BoxStore, licences: Sequence[str], deny_licences: Sequence[str]
) -> dict[str, TeacherRecord]:
    return {
        name: record
        for name, record in store.teachers.items()
        if licence_admitted(record.licence, licences, deny_licences)
    }


def _calibrations(
    store: BoxStore, records: Mapping[str, TeacherRecord], query: str, rows: pa.Table
) -> dict[str, Any]:
    """Summaries of the calibrations that a query may have used.

    Raises UsageError where it yields calibrated scores of a teacher that has none.
    """
    if "calibrated_score" not in without_comments(query).lower():
        return {}
    found = {name: read_calibration(store, name) for name in records}
    if rows["score"].null_count:
        for name in (name for name, calibration in found.items() if calibration is None):
            need_calibration(store, name)
    return {name: calibration.summary() for name, calibration in found.items() if calibration}


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise UsageError(
            "SQL needs DuckDB, which is not installed: pip install 'teach-detr[sql]'"
        ) from error
    return duckdb


def _check_splits(connection: "DuckDBPyConnection", sql: str) -> None:
    """Raise DataError for a query that takes an id for one image where it is several."""
    words = set(re.findall(r"\w+", without_comments(sql).lower()))
    if "image_id" not in words or "split" in words:
        return
    ((found,),) = connection.execute("SELECT getvariable('colliding')").fetchall()
    if found is not None:
        raise DataError(
            f"the query tells images apart by image_id, and {found}. Look at one split (--split "
            "NAME), or take the column split too: GROUP BY split, image_id; JOIN ... USING (split, "
            "image_id)"
        )


def _check_parameters(used: set[str], values: Mapping[str, Any], given: set[str]) -> None:
    for name in sorted(given - used):
        known = (
            f"it has {', '.join('$' + other for other in sorted(used))}" if used else "it has none"
        )
        raise UsageError(f"the query has no parameter ${name}; {known}.{nearest(name, used)}")
    missing = sorted(used - values.keys())
    if missing:
        raise UsageError(
            f"the query needs a value for {', '.join('$' + name for name in missing)}: give one, "
            f"or declare a default in a comment at its head: -- ${missing[0]} = 0.5"
        )


def _need(table: pa.Table, columns: tuple[str, ...], what: str) -> None:
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise UsageError(
            f"{what} must yield the columns {', '.join(columns)}; {', '.join(missing)} missing, it "
            f"yields {', '.join(table.column_names) or 'none'}"
        )


def _explained(error: Exception, sql: str) -> TeachDetrError:
    """An error of DuckDB as one of ours, in one sentence where we know the cause."""
    duckdb = _duckdb()
    text = str(error).strip()
    if isinstance(error, duckdb.CatalogException) and asks_truth(sql):
        return UsageError(
            "`truth` and `matched` need ground truth: attach a COCO annotation file "
            "(--annotations FILE)"
        )
    if isinstance(error, duckdb.IOException) or ".parquet" in text:
        return FormatError(
            f"{text}. Run `teach-detr check`; a damaged file may be deleted: its unit is redone by "
            "the next run"
        )
    kinds = (
        duckdb.ParserException,
        duckdb.BinderException,
        duckdb.CatalogException,
        duckdb.InvalidInputException,
        duckdb.ConversionException,
    )
    return UsageError(text) if isinstance(error, kinds) else StoreError(f"the query failed: {text}")
