"""The SQL surface, on a store small enough to count by hand."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from box_store.boxes import Boxes
from box_store.errors import DataError, FormatError, StoreError, UsageError
from box_store.query import open_store, run_sql, select_sql
from box_store.selection.selecting import Selection
from box_store.store.parts import part_path

# image 7: a person at the left, found by both teachers; a dog at the right, found by none, but
# `one` calls it a bicycle; a toothbrush that both teachers see and nobody annotated
PERSON, DOG, BRUSH = [10, 10, 110, 210], [400, 100, 500, 200], [200, 300, 300, 340]
TRUTH = [
    {"image_id": 7, "category_id": 1, "bbox": [10, 10, 100, 200]},
    {"image_id": 7, "category_id": 18, "bbox": [400, 100, 100, 100]},
    {"image_id": 17, "category_id": 1, "bbox": [0, 0, 300, 300], "iscrowd": 1},
]


def detections(rows: list[tuple[list[float], float, int]]) -> Boxes:
    boxes, scores, ids = zip(*rows, strict=True)
    return Boxes(boxes, scores, ids, 640, 480)


@pytest.fixture
def store(maker: Any) -> Any:
    store = maker.store()
    images = maker.images(3)
    one = detections(
        [(PERSON, 0.90625, 1), ([12, 12, 112, 212], 0.625, 1), (DOG, 0.75, 2), (BRUSH, 0.8125, 90)]
    )
    two = detections([([10, 10, 110, 200], 0.71875, 1), ([201, 301, 301, 341], 0.5, 90)])
    crowd = detections([([50, 50, 90, 90], 0.5, 1)])
    nothing = Boxes.empty(640, 480)
    for name, licence, boxes, second in (
        ("one", "Apache-2.0", one, maker.row(images[1], crowd)),
        ("two", "AGPL-3.0", two, maker.row(images[1], status="unreadable", error="bad JPEG")),
    ):
        rows = {
            images[0].id: maker.row(images[0], boxes),
            images[1].id: second,
            images[2].id: maker.row(images[2], nothing),
        }
        maker.fill(store, maker.record(name, n_images=3, licence=licence), rows)
    return store


@pytest.fixture
def connect(store: Any, maker: Any, request: pytest.FixtureRequest) -> Any:
    def opened(*, truth: bool = True) -> Any:
        connection = open_store(
            store.path, maker.annotations(3, TRUTH) if truth else None, threads=1
        )
        request.addfinalizer(connection.close)
        return connection

    return opened


def rows(connection: Any, sql: str, **parameters: Any) -> list[tuple]:
    table = run_sql(connection, sql, parameters)
    return [tuple(row.values()) for row in table.to_pylist()]


def test_boxes_have_names_and_measures(connect: Any) -> None:
    table = run_sql(
        connect(truth=False),
        "FROM boxes WHERE teacher = 'one' AND rank = 0 ORDER BY image_id LIMIT 1",
    )
    assert table.column_names == [
        *("teacher", "image_id", "category_id", "category", "score", "x1", "y1", "x2", "y2"),
        *("width", "height", "area", "rank", "calibrated_score", "licence", "split"),
    ]
    row = table.to_pylist()[0]
    assert (row["category"], row["width"], row["height"], row["area"]) == (
        "person",
        100,
        200,
        20000,
    )


def test_runs_tell_the_three_cases_apart(connect: Any) -> None:
    found = rows(
        connect(truth=False),
        "SELECT teacher, image_id, status, n_boxes FROM runs ORDER BY ALL",
    )
    assert found == [
        ("one", 7, "ok", 4),
        ("one", 17, "ok", 1),
        ("one", 27, "ok", 0),
        ("two", 7, "ok", 2),
        ("two", 17, "unreadable", 0),
        ("two", 27, "ok", 0),
    ]


def test_images_teachers_and_categories_are_listed(connect: Any) -> None:
    connection = connect(truth=False)
    assert rows(connection, "FROM images ORDER BY image_id")[0] == (
        7,
        "000000000007.jpg",
        640,
        480,
        "",
    )
    assert len(rows(connection, "FROM images")) == 3
    assert rows(
        connection, "SELECT name, licence, n_units, units_done FROM teachers ORDER BY 1"
    ) == [
        ("one", "Apache-2.0", 2, 2),
        ("two", "AGPL-3.0", 2, 2),
    ]
    assert rows(connection, "SELECT options ->> 'top_k' FROM teachers LIMIT 1") == [("100",)]
    assert rows(connection, "FROM categories WHERE category_id = 18") == [(18, "dog")]


def test_truth_is_shaped_as_boxes(connect: Any) -> None:
    connection = connect()
    boxes = run_sql(connection, "FROM boxes LIMIT 0").schema
    truth = run_sql(connection, "FROM truth LIMIT 0").schema
    assert truth.names == [*boxes.names, "truth_id", "iscrowd"]
    assert [truth.field(name).type for name in boxes.names] == [field.type for field in boxes]
    assert rows(connection, "SELECT count(*), sum(iscrowd::INT)::INT FROM truth") == [(3, 1)]


def test_iou_is_symmetric_and_zero_apart(connect: Any) -> None:
    connection = connect(truth=False)
    assert rows(connection, "SELECT iou(0,0,10,10, 0,0,10,5), iou(0,0,10,5, 0,0,10,10)") == [
        (0.5, 0.5)
    ]
    assert rows(connection, "SELECT iou(0,0,1,1, 5,5,6,6), iou(0,0,0,0, 0,0,0,0)") == [(0, 0)]


def test_matched_gives_each_box_its_outcome(connect: Any) -> None:
    found = rows(
        connect(),
        "SELECT image_id, category, outcome, truth_id FROM matched('one', 0.5, 0) "
        "ORDER BY image_id, rank",
    )
    assert found == [
        (7, "person", "hit", 0),
        (7, "toothbrush", "miss", None),
        (7, "bicycle", "miss", None),
        (7, "person", "duplicate", 0),
        (17, "person", "crowd", None),
    ]


def test_matched_takes_all_teachers_and_a_floor(connect: Any) -> None:
    counts = "SELECT teacher, count(*) FROM matched(NULL, 0.5, 0.7) GROUP BY 1 ORDER BY 1"
    assert rows(connect(), counts) == [("one", 3), ("two", 1)]


def test_without_annotations_truth_is_refused_with_the_remedy(connect: Any) -> None:
    for sql in ("FROM truth", "FROM matched('one', 0.5, 0)"):
        with pytest.raises(UsageError, match="--annotations FILE"):
            run_sql(connect(truth=False), sql)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELEKT 1", "syntax error"),
        ("FROM nosuch", "nosuch"),
        ("SELECT nosuch FROM boxes", "nosuch"),
        ("SELECT $x", r"needs a value for \$x"),
    ],
)
def test_faulty_sql_is_a_usage_error(connect: Any, sql: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run_sql(connect(truth=False), sql)


def test_parameters_are_bound_never_pasted(connect: Any) -> None:
    connection = connect(truth=False)
    hostile = "one'; DROP VIEW boxes; --"
    assert rows(connection, "FROM boxes WHERE teacher = $t", t=hostile) == []
    assert rows(connection, "SELECT count(*) FROM boxes WHERE teacher = $t", t="one") == [(5,)]
    with pytest.raises(UsageError, match=r"no parameter \$q; it has \$t\."):
        run_sql(connection, "FROM boxes WHERE teacher = $t", {"t": "one", "q": 1})


def test_defaults_stand_in_comments_and_can_be_overridden(connect: Any) -> None:
    connection = connect(truth=False)
    sql = "-- title\n-- $score = 0.75  floor\nSELECT count(*) FROM boxes WHERE score >= $score"
    assert rows(connection, sql) == [(3,)]
    assert rows(connection, sql, score=0.9) == [(1,)]


def test_several_statements_answer_with_the_last(connect: Any) -> None:
    connection = connect(truth=False)
    assert rows(connection, "CREATE TABLE t AS SELECT 1 AS a; SELECT a + $b FROM t", b=2) == [(3,)]
    assert run_sql(connection, "-- nothing").num_columns == 0


def test_a_store_without_teachers_has_empty_views(maker: Any) -> None:
    connection = open_store(maker.store().path)
    try:
        for view, first in (("boxes", "teacher"), ("images", "image_id"), ("runs", "teacher")):
            table = run_sql(connection, f"FROM {view}")
            assert table.num_rows == 0
            assert table.column_names[0] == first
        assert run_sql(connection, "FROM boxes").schema.field("image_id").type == pa.int64()
        assert run_sql(connection, "FROM boxes").schema.field("score").type == pa.float32()
    finally:
        connection.close()


def test_columns_have_the_same_types_with_and_without_files(maker: Any, connect: Any) -> None:
    empty = open_store(maker.store("empty").path)
    try:
        for view in ("boxes", "images", "runs", "teachers", "categories"):
            sql = f"FROM {view}"
            assert run_sql(connect(truth=False), sql).schema.equals(run_sql(empty, sql).schema)
    finally:
        empty.close()


def test_only_committed_units_are_seen(store: Any) -> None:
    part_path(store.path, "images", "one", 0).unlink()
    connection = open_store(store.path)
    try:
        assert rows(connection, "SELECT count(*) FROM boxes WHERE teacher = 'one'") == [(0,)]
    finally:
        connection.close()


@pytest.mark.parametrize("name", ["it's here", "a=b", "st[o]re", "Ünï ☃", "semi;colon"])
def test_any_folder_name_will_do(maker: Any, name: str) -> None:
    store = maker.store(name)
    maker.fill(store, maker.record("x.y-1"))
    connection = open_store(store.path)
    try:
        assert rows(connection, "SELECT teacher, count(*) FROM boxes GROUP BY 1") == [("x.y-1", 30)]
    finally:
        connection.close()


def test_a_truncated_file_is_named_when_the_store_is_opened(store: Any) -> None:
    path = part_path(store.path, "boxes", "two", 1)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(FormatError, match="part-00001"):
        open_store(store.path)


def test_a_file_damaged_inside_is_named_when_it_is_read(store: Any) -> None:
    path = part_path(store.path, "boxes", "one", 0)
    data = bytearray(path.read_bytes())
    data[4:80] = bytes(76)
    path.write_bytes(data)
    connection = open_store(store.path)
    try:
        with pytest.raises(StoreError):
            run_sql(connection, "SELECT sum(x1), sum(image_id) FROM boxes")
    finally:
        connection.close()


def test_faulty_annotations_and_no_store_are_refused(store: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no annotation file"):
        open_store(store.path, tmp_path / "no.json")
    with pytest.raises(StoreError, match="no box store"):
        open_store(tmp_path / "none")


# selections by SQL


def test_what_can_be_said_in_sql_can_be_trained_on(store: Any, tmp_path: Path) -> None:
    out = tmp_path / "some" / "selection.arrow"
    sql = "SELECT * FROM boxes WHERE score >= $floor AND category <> 'bicycle'"
    assert select_sql(store.path, sql, out, parameters={"floor": 0.6}) == out
    selection = Selection.open(out)
    assert selection.teachers == ("one", "two")
    boxes = selection.boxes("one", 7)
    assert boxes is not None
    assert boxes.class_ids.tolist() == [1, 90, 1]  # best first
    assert boxes.boxes_xyxy.tolist()[:2] == [PERSON, BRUSH]
    assert len(selection.boxes("one", 27)) == 0
    assert selection.boxes("two", 17) is None  # that teacher failed there
    assert selection.metadata["sources"]["two"]["licence"] == "AGPL-3.0"


def test_rows_without_a_teacher_are_one_set(store: Any, tmp_path: Path) -> None:
    sql = (
        "SELECT image_id, category_id, max(score) AS score, 0 x1, 0 y1, 9 x2, 9 y2 "
        "FROM boxes GROUP BY 1, 2"
    )
    selection = Selection.open(select_sql(store.path, sql, tmp_path / "s.arrow"))
    assert selection.teachers == ("selected",)
    assert selection.counts() == {"selected": (3, 4)}


def test_a_second_query_says_which_images_the_boxes_speak_for(store: Any, tmp_path: Path) -> None:
    path = select_sql(
        store.path,
        "FROM boxes WHERE teacher = 'one' AND image_id = 7",
        tmp_path / "s.arrow",
        images="SELECT 7 AS image_id",
    )
    assert Selection.open(path).counts() == {"one": (1, 4)}
    with pytest.raises(
        DataError, match="boxes in 1 images that the query for images does not yield"
    ):
        select_sql(store.path, "FROM boxes", tmp_path / "s.arrow", images="SELECT 7 AS image_id")


def test_selecting_nothing_says_that_nothing_was_seen(store: Any, tmp_path: Path) -> None:
    path = select_sql(store.path, "FROM boxes WHERE score > 2", tmp_path / "s.arrow")
    assert Selection.open(path).counts() == {"one": (3, 0), "two": (2, 0)}


def test_ground_truth_can_be_selected_too(store: Any, maker: Any, tmp_path: Path) -> None:
    path = select_sql(
        store.path,
        "FROM truth WHERE NOT iscrowd",
        tmp_path / "s.arrow",
        annotations=maker.annotations(3, TRUTH),
    )
    assert Selection.open(path).counts() == {"truth": (3, 2)}


GOOD = "7::BIGINT AS image_id, 1 AS category_id, 0.5 AS score, 0 AS x1, 0 AS y1, 5 AS x2, 5 AS y2"


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (("0.5 AS score, ", ""), UsageError, "score missing, it yields image_id"),
        (("0.5 AS", "1.5 AS"), DataError, "row 0 of the query has a score outside 0..1"),
        (("0.5 AS", "NULL AS"), DataError, "NULL, NaN or infinite"),
        (("5 AS x2", "0 AS x2"), DataError, "a box without area"),
        (("0 AS x1", "'nan'::FLOAT AS x1"), DataError, "NULL, NaN or infinite"),
        (("0 AS x1", "'left' AS x1"), DataError, "x1 must hold numbers"),
        (("1 AS category_id", "3 AS category_id"), DataError, r"unknown category ids \[3\]"),
        (("1 AS category_id", "1.5 AS category_id"), DataError, "must hold whole numbers"),
        (("7::BIGINT AS", "NULL::BIGINT AS"), DataError, "with 1 NULL"),
        (("7::BIGINT AS", "8 AS"), DataError, "does not know the image 8"),
        (("7::BIGINT AS", "NULL::VARCHAR AS teacher, 7 AS"), DataError, "teacher must hold names"),
    ],
)
def test_rows_that_are_no_boxes_are_refused(
    store: Any, tmp_path: Path, change: tuple[str, str], kind: type[Exception], message: str
) -> None:
    select_sql(store.path, f"SELECT {GOOD}", tmp_path / "good.arrow")
    assert change[0] in GOOD
    out = tmp_path / "s.arrow"
    with pytest.raises(kind, match=message):
        select_sql(store.path, f"SELECT {GOOD.replace(*change)}", out)
    assert not out.exists()
