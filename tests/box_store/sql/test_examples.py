"""Every documented query runs as it stands and answers what its title says."""

from collections.abc import Iterator
from typing import Any

import pytest

from box_store.boxes import Boxes
from box_store.errors import UsageError
from box_store.query import open_store, run_sql
from box_store.sql.examples import example_queries, example_query, parse_query

PERSON, DOG, BRUSH = [10, 10, 110, 210], [400, 100, 500, 200], [200, 300, 300, 340]
LONELY, SHIFTED = [500, 300, 600, 400], [430, 130, 530, 230]
TRUTH = [
    {"image_id": 7, "category_id": 1, "bbox": [10, 10, 100, 200]},
    {"image_id": 7, "category_id": 18, "bbox": [400, 100, 100, 100]},
    {"image_id": 17, "category_id": 2, "bbox": [0, 0, 50, 50]},
]


def detections(*rows: tuple[list[float], float, int]) -> Boxes:
    boxes, scores, ids = zip(*rows, strict=True)
    return Boxes(boxes, scores, ids, 640, 480)


@pytest.fixture(scope="module")
def ask(module_maker: Any) -> Iterator[Any]:
    maker = module_maker
    store, (first, second) = maker.store(), maker.images(2)
    answers = {
        "one": [
            detections(
                (PERSON, 0.90625, 1),
                (PERSON, 0.8125, 1),
                (DOG, 0.75, 2),
                (BRUSH, 0.8125, 90),
                (LONELY, 0.625, 1),
            ),
            Boxes.empty(640, 480),
        ],
        "two": [
            detections((PERSON, 0.71875, 1), (BRUSH, 0.5625, 90), (SHIFTED, 0.625, 18)),
            Boxes.empty(640, 480),
        ],
    }
    for name, licence in (("one", "Apache-2.0"), ("two", "AGPL-3.0")):
        a, b = answers[name]
        rows = {first.id: maker.row(first, a), second.id: maker.row(second, b)}
        maker.fill(store, maker.record(name, n_images=2, licence=licence), rows)
    connection = open_store(store.path, maker.annotations(2, TRUTH), threads=1)

    def answer(name: str, **parameters: Any) -> list[dict[str, Any]]:
        return run_sql(connection, example_query(name).sql, parameters).to_pylist()

    yield answer
    connection.close()


@pytest.mark.parametrize("name", example_queries())
def test_a_query_documents_itself_and_runs_with_its_defaults(ask: Any, name: str) -> None:
    query = example_query(name)
    assert query.title[0].isupper()
    assert len(query.description) > 20 or query.parameters
    assert set(query.meanings) == set(query.parameters)
    assert all(query.meanings.values())
    assert "truth" not in query.sql or query.needs_truth
    assert isinstance(ask(name), list)


def test_queries_run_on_an_empty_store_unless_they_need_truth(maker: Any) -> None:
    connection = open_store(maker.store().path)
    try:
        for query in example_queries().values():
            if query.needs_truth:
                with pytest.raises(UsageError, match="ground truth"):
                    run_sql(connection, query.sql)
            else:
                assert run_sql(connection, query.sql).num_rows == 0
    finally:
        connection.close()


def test_boxes_per_class(ask: Any) -> None:
    found = {(row["teacher"], row["category"]): row["boxes"] for row in ask("boxes_per_class")}
    assert found[("one", "person")] == 3
    assert found[("two", "dog")] == 1
    assert ("two", "bicycle") not in found
    assert sum(row["boxes"] for row in ask("boxes_per_class", score=0.7)) == 5


def test_disagreements(ask: Any) -> None:
    (row,) = ask("disagreements")
    assert (row["image_id"], row["boxes"], row["alone"]) == (7, 8, 3)
    assert row["classes"] == "bicycle, dog, person"


def test_missed_by_all(ask: Any) -> None:
    found = [(row["image_id"], row["category"]) for row in ask("missed_by_all")]
    assert found == [(7, "dog"), (17, "bicycle")]
    # the shifted dog overlaps by a third
    assert [row["category"] for row in ask("missed_by_all", iou=0.3)] == ["bicycle"]


def test_missing_labels(ask: Any) -> None:
    (row,) = ask("missing_labels")
    assert (row["category"], row["teacher"], row["others"], row["teachers"]) == (
        *("toothbrush", "one", "two"),
        2,
    )
    assert row["score"] == pytest.approx(0.8125, abs=1e-3)
    assert ask("missing_labels", teachers=3) == []


def test_calibration(ask: Any) -> None:
    found = {row["from_score"]: row["precision"] for row in ask("calibration", teacher="one")}
    assert found == {0.6: 0, 0.7: 0, 0.8: 0, 0.9: 1}
    assert {row["teacher"] for row in ask("calibration")} == {"one", "two"}


def test_shared_mistakes(ask: Any) -> None:
    found = {row["teacher"]: (row["mistakes"], row["shared"]) for row in ask("shared_mistakes")}
    # the toothbrush is both teachers'; one's bicycle and lonely person, two's shifted dog are not
    assert found == {"one": (3, 1), "two": (2, 1)}
    assert [row["teacher"] for row in ask("shared_mistakes", score=0.6)] == ["one", "two"]
    assert {row["shared"] for row in ask("shared_mistakes", score=0.6)} == {0}


def test_errors(ask: Any) -> None:
    found = {row["kind"]: row["n"] for row in ask("errors", teacher="one")}
    assert found == {"hit": 1, "duplicate": 1, "class": 1, "background": 2, "missed": 2}
    found = {row["kind"]: row["n"] for row in ask("errors", teacher="two")}
    assert found == {"hit": 1, "place": 1, "background": 1, "missed": 2}
    assert sum(row["share"] for row in ask("errors", teacher="two")) == pytest.approx(1)


def test_worst_images(ask: Any) -> None:
    first, second = ask("worst_images")
    assert (first["image_id"], first["objects"], first["teachers"]) == (7, 2, 2)
    # one: 4 wrong, 1 missed, 1 hit; two: 2 wrong, 1 missed, 1 hit
    assert (first["wrong"], first["missed"], first["f1"]) == (3, 1, 0.343)
    assert (second["image_id"], second["wrong"], second["missed"], second["f1"]) == (17, 0, 1, 0)
    assert len(ask("worst_images", top=1)) == 1


def test_agreement(ask: Any) -> None:
    found = {(row["teacher"], row["other"]): row for row in ask("agreement")}
    assert {key: (row["agreed"], row["boxes"]) for key, row in found.items()} == {
        ("one", "two"): (3, 5),
        ("two", "one"): (2, 3),
    }
    assert found[("one", "two")]["share"] == 0.6


def test_score_histogram(ask: Any) -> None:
    found = {(row["teacher"], row["from_score"]): row["boxes"] for row in ask("score_histogram")}
    assert found[("one", 0.8)] == 2
    assert sum(found.values()) == 8
    coarse = {row["from_score"]: row["boxes"] for row in ask("score_histogram", bands=2)}
    assert set(coarse) == {0.5}


def test_licences(ask: Any) -> None:
    (row,) = ask("licences")
    assert (row["licence"], row["teacher"], row["boxes"]) == ("AGPL-3.0", "two", 3)
    assert len(ask("licences", deny="*")) == 2


def test_coverage(ask: Any) -> None:
    assert [(row["teacher"], row["status"], row["images"]) for row in ask("coverage")] == [
        ("one", "ok", 2),
        ("two", "ok", 2),
    ]


def test_an_unknown_query_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'calibration'"):
        example_query("calibraton")


def test_heads_are_read_as_written() -> None:
    text = (
        '-- Title\n-- first\n-- second\n-- $a = 0.5  how much\n-- $b = "x y"\nSELECT $a -- $c = 1'
    )
    query = parse_query("q", text)
    assert (query.title, query.description) == ("Title", "first second")
    assert query.parameters == {"a": 0.5, "b": "x y"}
    assert query.meanings == {"a": "how much", "b": ""}
    with pytest.raises(UsageError, match=r"default of \$a must be JSON"):
        parse_query("q", "-- $a = maybe\nSELECT 1")
