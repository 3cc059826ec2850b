"""Annotations of several splits at once: an image is joined with its own split's, never by id."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from box_store.boxes import Boxes
from box_store.coco.annotations import load_coco
from box_store.errors import DataError
from box_store.query import open_store, run_sql
from box_store.sql.examples import example_queries, example_query
from box_store.store.records import DatasetInfo, ImageRow
from box_store.store.store import BoxStore
from tests.box_store.store.test_splits import enter

# the object of each image stands elsewhere in each split
CORNER = {"train": (4, 4), "valid": (36, 24)}
SIDE = 16
OUTCOMES = "SELECT teacher, split, outcome, count(*) n FROM matched(NULL, 0.5, 0.0) GROUP BY ALL"


def write(folder: Path, split: str, ids: Sequence[int], name: str = "frame_{}.png") -> Path:
    document = {
        "images": [{"id": i, "file_name": name.format(i), "width": 64, "height": 48} for i in ids],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": n, "image_id": i, "category_id": 1, "bbox": [*CORNER[split], SIDE, SIDE]}
            for n, i in enumerate(ids)
        ],
    }
    path = folder / f"instances_{split}.json"
    path.write_text(json.dumps(document))
    return path


def found(split: str, category_id: int = 1) -> Boxes:
    x, y = CORNER[split]
    return Boxes([[x, y, x + SIDE, y + SIDE]], [0.75], [category_id], 64, 48)


@dataclass
class Case:
    store: BoxStore
    paths: list[Path]

    def ask(self, sql: str, *paths: Path, **parameters: Any) -> list[dict[str, Any]]:
        connection = open_store(self.store.path, paths or self.paths, threads=1)
        try:
            return run_sql(connection, sql, parameters).to_pylist()
        finally:
            connection.close()


def make(folder: Path, *, splits: Sequence[str] = ("train", "valid"), named: bool = True) -> Case:
    """`right` finds the object of each image; `lost` sees the boxes of the other split."""
    paths = [write(folder, split, range(3 + (split == "valid"))) for split in CORNER]
    store = BoxStore.create(
        folder / "store", load_coco(paths[0]).categories, DatasetInfo("d", "0" * 64, 7)
    )
    other = {"train": "valid", "valid": "train"}
    for name, of in (("right", {s: s for s in CORNER}), ("lost", other)):
        rows = [
            ImageRow(i, f"frame_{i}.png", 64, 48, found(of[split]), split=split if named else "")
            for split in splits
            for i in range(3 + (split == "valid"))
        ]
        enter(store, name, rows)
    return Case(store, paths)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make(tmp_path_factory.mktemp("both"))


def test_every_object_is_of_its_own_split(both: Case) -> None:
    rows = both.ask("SELECT split, count(*) n, min(x1) x, max(rank) r FROM truth GROUP BY ALL")
    assert sorted(tuple(row.values()) for row in rows) == [("train", 3, 4, 0), ("valid", 4, 36, 0)]
    ((n,),) = [row.values() for row in both.ask("SELECT count(DISTINCT truth_id) FROM truth")]
    assert n == 7
    # an image that no annotation lists, or no teacher saw, is there once too
    rows = both.ask("SELECT split, count(*) n FROM images GROUP BY ALL ORDER BY ALL")
    assert [tuple(row.values()) for row in rows] == [("train", 3), ("valid", 4)]


def test_outcomes_are_those_of_each_split_by_itself(both: Case) -> None:

    together = sorted(tuple(row.values()) for row in both.ask(OUTCOMES))
    apart = sorted(tuple(row.values()) for path in both.paths for row in both.ask(OUTCOMES, path))
    assert together == apart
    assert together == [
        *(("lost", "train", "miss", 3), ("lost", "valid", "miss", 4)),
        *(("right", "train", "hit", 3), ("right", "valid", "hit", 4)),
    ]


@pytest.mark.parametrize("name", example_queries())
def test_documented_queries_join_no_split_with_another(both: Case, name: str) -> None:
    """Sums over both splits are those of each; rows of images say their split."""
    sql = example_query(name).sql
    parameters = {"top": 100} if "$top" in sql else {}
    together = both.ask(sql, **parameters)
    apart = [both.ask(sql, path, **parameters) for path in both.paths]
    if together and "image_id" in together[0]:
        assert {row["split"] for row in together} <= {"train", "valid"}
        assert sorted(map(repr, together)) == sorted(repr(row) for rows in apart for row in rows)
        return
    counted = {"boxes", "images", "n", "hits", "mistakes", "shared", "agreed"}
    for column in counted & set(together[0] if together else ()):
        assert sum(row[column] for row in together) == sum(
            row[column] for rows in apart for row in rows
        )


def test_a_store_of_one_split_is_joined_with_that_one(tmp_path: Path) -> None:
    case = make(tmp_path, splits=["train"])
    rows = case.ask(
        "SELECT teacher, split, outcome, count(*) n FROM matched(NULL, 0.5, 0.0) GROUP BY ALL"
    )
    assert sorted(tuple(row.values()) for row in rows) == [
        ("lost", "train", "miss", 3),
        ("right", "train", "hit", 3),
    ]
    seen = case.ask("SELECT split, count(*) n FROM truth GROUP BY ALL ORDER BY ALL")
    assert [tuple(row.values()) for row in seen] == [("train", 3), ("valid", 4)]


def test_what_could_be_either_is_refused(tmp_path: Path, both: Case) -> None:
    unnamed = make(tmp_path, splits=["train"], named=False)
    with pytest.raises(DataError, match=r"both list image 0 \(frame_0.png, frame_0.png\)"):
        unnamed.ask("FROM truth")
    assert len(unnamed.ask("FROM truth", unnamed.paths[0])) == 3
    with pytest.raises(DataError, match="both list image"):
        both.ask("FROM truth", both.paths[0], both.paths[0])


def test_an_id_alone_is_refused_where_it_is_two_images(both: Case) -> None:
    with pytest.raises(DataError, match="split"):
        both.ask("SELECT image_id, count(*) FROM boxes GROUP BY image_id")


def test_ids_that_do_not_collide_need_no_names(tmp_path: Path) -> None:
    first, second = write(tmp_path, "train", [1, 2]), write(tmp_path, "valid", [3])
    store = BoxStore.create(
        tmp_path / "store", load_coco(first).categories, DatasetInfo("d", "0" * 64, 3)
    )
    of = {1: "train", 2: "train", 3: "valid"}
    rows = [ImageRow(i, f"frame_{i}.png", 64, 48, found(split)) for i, split in of.items()]
    enter(store, "right", rows)
    sql = "SELECT image_id, outcome FROM matched(NULL, 0.5, 0.0) ORDER BY image_id"
    assert [tuple(row.values()) for row in Case(store, [first, second]).ask(sql)] == [
        *((1, "hit"), (2, "hit"), (3, "hit")),
    ]
