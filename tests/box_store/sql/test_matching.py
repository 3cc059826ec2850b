"""SQL has the outcomes of the one matching."""

from typing import Any

import numpy as np

from box_store.boxes import Boxes, to_xywh, to_xyxy
from box_store.calibration.matching import match_boxes
from box_store.coco.annotations import load_coco
from box_store.query import open_store, run_sql
from box_store.store.reader import boxes_of


def rows(connection: Any, sql: str) -> list[tuple]:
    return [tuple(row.values()) for row in run_sql(connection, sql).to_pylist()]


def test_the_second_box_of_an_object_takes_another_that_it_overlaps_enough(maker: Any) -> None:
    """As calibration and COCO have it: two people close together are found by two boxes, though
    both lie nearer to the first."""
    image = maker.images(1)[0]
    near, far = [0, 0, 100, 100], [0, 30, 100, 130]
    truth = [
        {"image_id": image.id, "category_id": 1, "bbox": to_xywh([box])[0].tolist()}
        for box in (near, far)
    ]
    store = maker.store()
    found = [near, [0, 5, 100, 105], [0, 2, 100, 102]]
    boxes = Boxes(found, [0.9, 0.8, 0.7], [1, 1, 1], 640, 480)
    rows_of = {image.id: maker.row(image, boxes)}
    maker.fill(store, maker.record("one", n_images=1), rows_of)
    connection = open_store(store.path, maker.annotations(1, truth), threads=1)
    query = "SELECT outcome, truth_id, round(iou, 3) FROM matched('one', 0.5, 0) ORDER BY rank"
    assert rows(connection, query) == [
        ("hit", 0, 1),
        ("hit", 1, 0.6),
        ("duplicate", 0, 0.961),
    ]
    connection.close()


def test_sql_has_the_outcomes_of_the_matching(maker: Any) -> None:
    """Boxes in crowds, on taken objects, of images without objects, of two teachers."""
    rng = np.random.default_rng(3)
    images = maker.images(12)
    store = maker.store()
    truth = []
    for image in images[:10]:
        for _ in range(rng.integers(0, 12)):
            side = rng.integers(20, 80, 2)
            corner = rng.integers(0, 120, 2)
            truth.append(
                {
                    "image_id": image.id,
                    "category_id": int(rng.choice([1, 2])),
                    "bbox": [*corner.tolist(), *side.tolist()],
                    "iscrowd": int(rng.random() < 0.2),
                }
            )
    for teacher in ("one", "two"):
        filled = {}
        for image in images:
            near = [row["bbox"] for row in truth if row["image_id"] == image.id] or [[0, 0, 9, 9]]
            drawn = to_xyxy(np.repeat(near, 3, axis=0) + rng.integers(0, 12, (3 * len(near), 4)))
            scores, ids = rng.random(len(drawn)), rng.choice([1, 2], len(drawn))
            filled[image.id] = maker.row(image, Boxes(drawn, scores, ids, 640, 480))
        maker.fill(store, maker.record(teacher, n_images=12), filled)
    annotations = maker.annotations(12, truth)
    coco = load_coco(annotations)
    first = np.cumsum([0, *(len(coco.annotations_of(image.id)) for image in images)]).tolist()
    connection = open_store(store.path, annotations, threads=1)
    said = rows(
        connection,
        "SELECT teacher, image_id, rank, outcome, truth_id FROM matched(NULL, 0.5, 0.2) "
        "ORDER BY ALL",
    )
    connection.close()
    expected = []
    for teacher in ("one", "two"):
        for at, image in enumerate(images):
            boxes = boxes_of(store, teacher, image.id)
            assert boxes is not None
            result = match_boxes(boxes.above(0.2), coco.annotations_of(image.id), 0.5)
            for rank, (outcome, target) in enumerate(
                zip(result.outcome.tolist(), result.objects.tolist(), strict=True)
            ):
                word = {1: "hit", -1: "crowd"}.get(outcome, "miss" if target < 0 else "duplicate")
                truth_id = None if target < 0 else first[at] + target
                expected.append((teacher, image.id, rank, word, truth_id))
    assert said == expected
    assert {word for *_, word, _ in said} == {"hit", "miss", "duplicate", "crowd"}
