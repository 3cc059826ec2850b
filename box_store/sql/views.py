"""The views and tables of a store's SQL surface, made in a fresh DuckDB connection."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from box_store.calibration.score_map import read_calibration
from box_store.errors import DataError
from box_store.places.locations import Location, staged
from box_store.sql.examples import setup_sql
from box_store.sql.ground_truth import Part, from_arrow, make_dataset_images, make_truth
from box_store.sql.matching import add_matching
from box_store.store import schema, splits
from box_store.store.parts import check_footer, part_path, read_footer
from box_store.store.reader import seen_images
from box_store.store.records import TeacherRecord
from box_store.store.store import BoxStore

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# what the columns are called in SQL where there is no file yet to tell
_SQL_TYPES = {
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.string(): "VARCHAR",
    schema.BOXES.field("split").type: "VARCHAR",
}
_BOXES = """
CREATE VIEW boxes AS
SELECT
    p.teacher, p.image_id, p.category_id, c.name AS category, p.score, p.x1, p.y1, p.x2, p.y2,
    p.x2 - p.x1 AS width, p.y2 - p.y1 AS height, (p.x2 - p.x1) * (p.y2 - p.y1) AS area, p.rank,
    p.calibrated_score, p.licence, p.split
FROM boxes_parts p LEFT JOIN categories c USING (category_id)
"""
_RUNS = """
CREATE VIEW runs AS
SELECT teacher, image_id, status, n_boxes, error, seconds, split FROM images_parts
"""
_IMAGES = """
CREATE VIEW images AS
FROM dataset_images
UNION ALL
SELECT image_id, arg_max(file_name, width), max(width), arg_max(height, width), split
FROM images_parts ANTI JOIN dataset_images USING (split, image_id)
GROUP BY split, image_id
"""


def make_views(
    connection: "DuckDBPyConnection",
    store: BoxStore,
    records: Mapping[str, TeacherRecord],
    parts: Sequence[Part],
) -> None:
    """Enter everything that `box_store.query` documents, of the teachers in `records`. `parts`:
    the annotations, whose images `store` shows.

    Raises FormatError for a damaged file.
    """
    connection.execute("CREATE TABLE categories (category_id INTEGER, name VARCHAR)")
    _insert(connection, "categories", ((c.id, c.name) for c in store.categories.items))
    _make_teachers(connection, store, records)
    calibrated = _make_calibrations(connection, store, records)
    _make_split_names(connection, store, parts)
    for kind in ("boxes", "images"):
        connection.execute(_parts_view(store, records, kind, calibrated))
    make_dataset_images(connection, parts)
    for statement in (_BOXES, _RUNS, _IMAGES, setup_sql("macros.sql")):
        connection.execute(statement)
    if parts:
        make_truth(connection, parts)
        add_matching(connection)
        connection.execute(setup_sql("truth_macros.sql"))


def _parts_view(
    store: BoxStore,
    records: Mapping[str, TeacherRecord],
    kind: str,
    calibrated: Mapping[str, str],
) -> str:
    """All committed files of a kind, with columns for what is the same for a whole teacher."""
    nulls = f"SELECT NULL::VARCHAR AS teacher, {_typed_nulls(kind)}"
    if kind == "boxes":
        nulls += ", NULL::FLOAT AS calibrated_score, NULL::VARCHAR AS licence"
    branches = [f"{nulls} WHERE false"]
    for name, record in records.items():
        columns = f"{_quoted(name)} AS teacher, *"
        if kind == "boxes":
            score = calibrated.get(name, "NULL::FLOAT")
            columns += f", {score} AS calibrated_score, {_quoted(record.licence)} AS licence"
        paths = [part_path(store.path, kind, name, unit) for unit in sorted(store.units_done(name))]
        branches += _branches(store, kind, record, columns, paths)
    parts = " UNION ALL BY NAME ".join(branches)
    return f"""
        CREATE VIEW {kind}_parts AS
        SELECT p.* REPLACE (coalesce(s.label, p.split) AS split)
        FROM ({parts}) p LEFT JOIN split_names s USING (image_id, split)
    """


def _branches(
    store: BoxStore, kind: str, record: TeacherRecord, columns: str, paths: Sequence[Location]
) -> Iterator[str]:
    """The files of a teacher: those that name splits, and those of format 1."""
    named: list[str] = []
    unnamed: list[str] = []
    for path in paths:
        footer = read_footer(path)
        check_footer(footer, path, kind, record)
        (named if footer.names_splits else unnamed).append(_quoted(str(staged(path))))
    shown = store.shown
    # a store below a folder called a=b must not gain a column a
    read = "read_parquet([{}], hive_partitioning = false)"
    if named:
        only = (
            "" if shown is None else f" WHERE split IN ({', '.join(map(_quoted, shown)) or 'NULL'})"
        )
        yield f"SELECT {columns} FROM {read.format(', '.join(named))}{only}"
    if unnamed and (shown is None or "" in shown):
        yield f"SELECT {columns}, '' AS split FROM {read.format(', '.join(unnamed))}"


def _make_split_names(
    connection: "DuckDBPyConnection", store: BoxStore, parts: Sequence[Part]
) -> None:
    """The table `split_names` of images that are kept under several names of their split, as by
    files of format 1.

    Where ids collide, the variable `colliding` says how, for `box_store.query` to refuse what does
    not ask.
    """
    connection.execute("CREATE TABLE split_names (image_id BIGINT, split VARCHAR, label VARCHAR)")
    seen = seen_images(store)
    several = store.shown is None or len(parts) > 1
    found = splits.collision(seen) if several else None
    if found is not None:
        connection.execute("SET VARIABLE colliding = ?", [splits.collision_words(found)])
    stores = [part.store for part in parts] or ([store] if found is None else [])
    labels: dict[tuple[int, str], str] = {}
    for shown in {each.shown for each in stores}:
        images = seen if shown == store.shown else seen_images(replace(store, shown=shown))
        of_id = splits.labels_of(images)
        for image in images:
            label = labels.setdefault((image.id, image.split), of_id[image.id])
            if label != of_id[image.id]:
                raise DataError(
                    f"the store {store.path} has image {image.id} ({image.file_name}) without the "
                    f"name of its split, and it could be that of {label} or {of_id[image.id]}: "
                    "attach the annotations of one"
                )
    other = [(*key, label) for key, label in sorted(labels.items()) if key[1] != label]
    if not other:
        return
    columns = zip(*other, strict=True)
    types = (pa.int64(), pa.string(), pa.string())
    rows = pa.table(
        [pa.array(column, of) for column, of in zip(columns, types, strict=True)],
        names=["image_id", "split", "label"],
    )
    from_arrow(connection, rows, "rows_of_splits", "INSERT INTO split_names FROM rows_of_splits")


def _make_calibrations(
    connection: "DuckDBPyConnection", store: BoxStore, records: Mapping[str, TeacherRecord]
) -> dict[str, str]:
    """The table of calibrations; returns, by teacher, the expression of its calibrated score.

    A stored score is one of few steps, so a map is a list that is indexed by the step. It costs
    nothing where the column is not asked for.
    """
    connection.execute(
        "CREATE TABLE calibrations (teacher VARCHAR, method VARCHAR, annotations VARCHAR, "
        "n_images BIGINT, n_boxes BIGINT, error DOUBLE, calibrated_error DOUBLE, brier DOUBLE, "
        "calibrated_brier DOUBLE)"
    )
    expressions: dict[str, str] = {}
    steps = np.arange(schema.SCORE_STEPS + 1)
    for number, name in enumerate(records):
        found = read_calibration(store, name)
        if found is None:
            continue
        part = found.held or found.fitted
        row = (
            *(name, found.map.method, found.annotations, part.n_images, part.n_boxes),
            *(part.raw.calibration_error, part.calibrated.calibration_error),
            *(part.raw.brier, part.calibrated.brier),
        )
        _insert(connection, "calibrations", [row])
        values = found.map.apply((steps / schema.SCORE_STEPS).astype(np.float32))
        variable = f"calibration_{number}"
        from_arrow(
            connection,
            pa.table({"step": steps, "score": values}),
            "steps_of_scores",
            f"SET VARIABLE {variable} = (SELECT list(score ORDER BY step) FROM steps_of_scores)",
        )
        step = f"round(score * {schema.SCORE_STEPS})::INTEGER"
        expressions[name] = f"getvariable('{variable}')[1 + {step}]"
    return expressions


def _typed_nulls(kind: str) -> str:
    return ", ".join(
        f"NULL::{_SQL_TYPES[field.type]} AS {field.name}" for field in schema.SCHEMAS[kind]
    )


def _make_teachers(
    connection: "DuckDBPyConnection", store: BoxStore, records: Mapping[str, TeacherRecord]
) -> None:
    connection.execute(
        "CREATE TABLE teachers (name VARCHAR, adapter VARCHAR, model VARCHAR, licence VARCHAR, "
        "weights_sha256 VARCHAR, fingerprint VARCHAR, n_images BIGINT, n_units BIGINT, "
        "units_done BIGINT, class_map JSON, options JSON, versions JSON)"
    )
    _insert(
        connection,
        "teachers",
        (
            (
                record.name,
                record.adapter,
                record.model,
                record.licence,
                record.weights_sha256,
                record.fingerprint,
                record.n_images,
                record.n_units,
                len(store.units_done(record.name)),
                json.dumps(dict(record.class_map)),
                json.dumps(dict(record.options)),
                json.dumps(dict(record.versions)),
            )
            for record in records.values()
        ),
    )


def _insert(connection: "DuckDBPyConnection", table: str, rows: Iterable[tuple[Any, ...]]) -> None:
    for row in rows:
        marks = ", ".join("?" for _ in row)
        connection.execute(f"INSERT INTO {table} VALUES ({marks})", row)


def _quoted(text: str) -> str:
    """A text literal: paths and names may hold quotes."""
    return "'" + text.replace("'", "''") + "'"
