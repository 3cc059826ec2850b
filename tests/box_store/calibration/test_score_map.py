"""Maps of scores to the chance of being right: fitted, kept, and applied at selection."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from box_store.boxes import Boxes
from box_store.calibration.fitting import calibrate, fit_map
from box_store.calibration.judging import Judged
from box_store.calibration.reliability import brier_score, calibration_error, reliability
from box_store.calibration.score_map import (
    Calibration,
    Part,
    Quality,
    ScoreMap,
    calibration_path,
    read_calibration,
    write_calibration,
)
from box_store.check import check_store
from box_store.coco.annotations import load_coco
from box_store.errors import DataError, FormatError, UsageError
from box_store.query import open_store, run_sql, select_sql
from box_store.selection.selecting import Selection, SelectionSpec, TeacherFilter, select

RAW = SelectionSpec(score_floor=0, top_k=1000)


def judged(chance: Any, n: int = 20000, seed: int = 0) -> Judged:
    """Boxes with uniform scores s that are right with probability chance(s)."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random(n) * 4096).astype(np.float32) / np.float32(4096)
    hits = rng.random(n) < chance(scores)
    return Judged(np.array([1]), np.zeros(n, np.int64), scores, hits, np.ones(n, np.int32))


def calibration_of(store: Any, name: str, score_map: ScoreMap) -> Calibration:
    """One written by hand."""
    nothing = Quality(None, None, None, [])
    part = Part(0, 0, 0, nothing, nothing)
    return Calibration(
        teacher=name,
        fingerprint=store.record(name).fingerprint,
        map=score_map,
        annotations="val.json",
        annotations_sha256="0" * 64,
        iou=0.5,
        seed=0,
        held_out=0.5,
        fitted=part,
        held=part,
    )


SQUARE = ScoreMap("isotonic", tuple((x / 64, (x / 64) ** 2) for x in range(65)))


@pytest.mark.parametrize(
    ("method", "chance", "within"),
    [
        ("isotonic", lambda s: s**2, 0.08),
        ("temperature", lambda s: 1 / (1 + ((1 - s) / np.maximum(s, 1e-9)) ** 0.5), 0.01),
    ],
)
def test_a_fit_recovers_the_chance_of_being_right(method: Any, chance: Any, within: float) -> None:
    found = fit_map(judged(chance), method, "teacher one")
    scores = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(found.apply(scores), chance(scores), atol=within)
    if method == "temperature":
        assert found.temperature == pytest.approx(2, abs=0.1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["isotonic", "temperature"]))
def test_a_map_never_reorders_boxes_and_stays_in_range(seed: int, method: Any) -> None:
    rng = np.random.default_rng(seed)
    data = judged(lambda s: rng.random(len(s)), n=200, seed=seed)
    score_map = fit_map(data, method, "teacher one")
    found = score_map.apply(np.arange(4097) / np.float32(4096))
    assert (np.diff(found) >= 0).all()
    assert 0 <= found[0] <= found[-1] <= 1


def test_too_little_to_fit_to_is_said() -> None:
    few = judged(lambda s: s, n=10)
    with pytest.raises(DataError, match=r"teacher one cannot be calibrated: .* of 10 boxes"):
        fit_map(few, "isotonic", "teacher one")
    with pytest.raises(DataError, match="0 of 200 boxes"):
        fit_map(judged(np.zeros_like, n=200), "temperature", "teacher one")


def test_reliability_counts_bands_and_errors_by_hand() -> None:
    scores, hits = np.array([0.05, 0.15, 0.15, 1.0]), np.array([False, True, False, True])
    bands = reliability(scores, hits)
    assert [(b["from_score"], b["boxes"], b["precision"]) for b in bands] == [
        (0.0, 1, 0.0),
        (0.1, 2, 0.5),
        (0.9, 1, 1.0),
    ]
    assert calibration_error(bands) == pytest.approx((0.05 + 2 * 0.35 + 0) / 4)
    assert calibration_error(bands, 0.9) == 0
    assert calibration_error([]) is None
    expected = (0.05**2 + 0.85**2 + 0.15**2) / 4
    assert brier_score(scores, hits) == pytest.approx(expected)


@pytest.fixture
def overconfident(maker: Any) -> tuple[Any, Path]:
    """Sixty images with ten objects each; a box that scores s finds its object with chance s^2."""
    store = maker.store()
    images = maker.images(60)
    rng = np.random.default_rng(0)
    truth, rows = [], {}
    for image in images:
        corners = [[60 * k, 10, 60 * k + 40, 50] for k in range(10)]
        truth += [
            {"image_id": image.id, "category_id": 1, "bbox": [x1, y1, 40, 40]}
            for x1, y1, _, _ in corners
        ]
        scores = rng.random(10)
        right = rng.random(10) < scores**2
        boxes = np.array(corners, np.float32) + np.where(right, 0, 300)[:, None] * [0, 1, 0, 1]
        rows[image.id] = maker.row(image, Boxes(boxes, scores, [1] * 10, 640, 480))
    maker.fill(store, maker.record("one", n_images=60, unit_size=20), rows)
    return store, maker.annotations(60, truth)


def test_an_overconfident_teacher_comes_out_calibrated(overconfident: Any) -> None:
    store, annotations = overconfident
    found = calibrate(store, "one", load_coco(annotations))
    assert found.held is not None
    assert (found.fitted.n_images, found.held.n_images, found.held.n_boxes) == (30, 30, 300)
    raw, after = found.held.raw, found.held.calibrated
    assert raw.calibration_error > 0.1 > 2 * after.calibration_error
    assert after.brier < raw.brier
    # the same seed divides the same way, another one differently
    assert calibrate(store, "one", load_coco(annotations)).key == found.key
    assert calibrate(store, "one", load_coco(annotations), seed=1).key != found.key
    few = calibrate(store, "one", load_coco(annotations), held_out=0, max_images=20)
    assert (few.held, few.fitted.n_images) == (None, 20)


def test_repeats_that_will_not_teach_do_not_make_a_box_look_unsure(maker: Any) -> None:
    store, images = maker.store(), maker.images(60)
    truth, rows = [], {}
    rng = np.random.default_rng(0)
    for image in images:
        right = rng.random() < 0.9
        x1 = 10 if right else 300
        truth.append({"image_id": image.id, "category_id": 1, "bbox": [10, 10, 40, 40]})
        boxes = [[x1, 10, x1 + 40, 50], [x1 + 2, 10, x1 + 42, 50]]
        rows[image.id] = maker.row(image, Boxes(boxes, [0.8, 0.8], [1, 1], 640, 480))
    maker.fill(store, maker.record("one", n_images=60, unit_size=60), rows)
    coco = load_coco(maker.annotations(60, truth))
    suppressed = calibrate(store, "one", coco, held_out=0)
    assert (suppressed.nms_iou, suppressed.fitted.n_boxes) == (0.5, 60)
    everything = calibrate(store, "one", coco, held_out=0, nms_iou=None)
    assert (everything.nms_iou, everything.fitted.n_boxes) == (None, 120)
    sure = suppressed.map.apply(np.array([0.8], np.float32))
    unsure = everything.map.apply(np.array([0.8], np.float32))
    assert sure == pytest.approx(suppressed.fitted.n_hits / 60, abs=1e-5)
    assert unsure == pytest.approx(sure / 2, abs=1e-5)


def test_a_calibration_is_kept_whole_and_belongs_to_its_teacher(overconfident: Any) -> None:
    store, annotations = overconfident
    assert read_calibration(store, "one") is None
    found = calibrate(store, "one", load_coco(annotations))
    write_calibration(store, found)
    assert read_calibration(store, "one") == found
    assert check_store(store.path).ok
    path = calibration_path(store, "one")
    write_calibration(store, replace(found, fingerprint="0" * 64))
    with pytest.raises(FormatError, match="another configuration of one"):
        read_calibration(store, "one")
    document = json.loads(json.dumps(found.to_json()))
    document["map"]["knots"][0][0] /= 2
    path.write_text(json.dumps(document))
    with pytest.raises(FormatError, match="changed by hand"):
        read_calibration(store, "one")
    for damaged in ("{", "[]", json.dumps(document | {"map": {"method": "magic", "knots": []}})):
        path.write_text(damaged)
        with pytest.raises(FormatError, match="damaged"):
            read_calibration(store, "one")
        (problem,) = check_store(store.path).problems
        assert (problem.kind, problem.file) == ("calibration", "calibration/one.json")


def test_other_images_and_other_categories_are_refused(overconfident: Any, maker: Any) -> None:
    store, annotations = overconfident
    document = json.loads(annotations.read_text())
    document["categories"][0]["name"] = "horse"
    coco = load_coco(maker.json_file("other.json", document))
    with pytest.raises(DataError, match="other categories than the store"):
        calibrate(store, "one", coco)
    document = json.loads(annotations.read_text())
    for row in document["images"]:
        row["id"] += 1000
    document["annotations"] = []
    with pytest.raises(DataError, match="saw no image of"):
        calibrate(store, "one", load_coco(maker.json_file("elsewhere.json", document)))
    with pytest.raises(UsageError, match="held_out is a share"):
        calibrate(store, "one", load_coco(annotations), held_out=1)


def test_the_floor_of_a_calibrated_selection_is_one_of_calibrated_scores(maker: Any) -> None:
    store = maker.store()
    maker.fill(store, maker.record("one"))
    maker.fill(store, maker.record("two"))
    write_calibration(store, calibration_of(store, "one", SQUARE))
    spec = replace(RAW, score_floor=0.25, per_teacher={"one": TeacherFilter(calibrated=True)})
    raw = Selection.open(select(store, RAW))
    found = Selection.open(select(store, spec))
    for image in maker.images(6):
        before, after = raw.boxes("one", image.id), found.boxes("one", image.id)
        kept = SQUARE.apply(before.scores) >= 0.25
        np.testing.assert_array_equal(after.scores, SQUARE.apply(before.scores)[kept])
        np.testing.assert_array_equal(after.boxes_xyxy, before.boxes_xyxy[kept])
        assert found.boxes("two", image.id) == raw.boxes("two", image.id).above(0.25)
    assert found.metadata["calibrations"]["one"]["method"] == "isotonic"


def test_a_selection_is_named_by_its_calibration(maker: Any) -> None:
    store = maker.store()
    maker.fill(store, maker.record("one"))
    calibrated = replace(RAW, calibrated=True)
    with pytest.raises(UsageError, match=r"no calibration.*teach-detr calibrate .* --teacher one"):
        select(store, calibrated)
    raw = select(store, RAW)
    names = {raw}
    for temperature in (2.0, 3.0):
        score_map = ScoreMap("temperature", temperature=temperature)
        write_calibration(store, calibration_of(store, "one", score_map))
        path = select(store, calibrated)
        names.add(path)
        # a temperature given by hand does the same, after the floor
        by_hand = replace(RAW, per_teacher={"one": TeacherFilter(temperature=temperature)})
        for image in maker.images(6):
            assert Selection.open(path).boxes("one", image.id) == Selection.open(
                select(store, by_hand)
            ).boxes("one", image.id)
    assert len(names) == 3
    assert select(store, RAW) == raw
    with pytest.raises(UsageError, match="leave out one of the two"):
        replace(calibrated, per_teacher={"one": TeacherFilter(temperature=2.0)})


def test_sql_sees_the_calibrated_score_that_a_selection_has(maker: Any) -> None:
    store = maker.store()
    maker.fill(store, maker.record("one"))
    maker.fill(store, maker.record("two"))
    write_calibration(store, calibration_of(store, "one", SQUARE))
    connection = open_store(store.path, threads=1)
    table = run_sql(connection, "FROM boxes ORDER BY teacher, image_id, rank")
    listed = run_sql(connection, "SELECT teacher, method FROM calibrations").to_pylist()
    connection.close()
    assert listed == [{"teacher": "one", "method": "isotonic"}]
    one = table.filter(np.asarray(table["teacher"].to_pylist()) == "one")
    expected = SQUARE.apply(one["score"].to_numpy())
    np.testing.assert_array_equal(one["calibrated_score"].to_numpy(), expected)
    assert table["calibrated_score"].null_count == 30


def test_a_query_may_select_calibrated_scores_where_there_are_some(
    maker: Any, tmp_path: Path
) -> None:
    store = maker.store()
    maker.fill(store, maker.record("one"))
    maker.fill(store, maker.record("two", licence="AGPL-3.0"))
    write_calibration(store, calibration_of(store, "one", SQUARE))
    query = "SELECT * REPLACE (calibrated_score AS score) FROM boxes"
    with pytest.raises(UsageError, match=r"teacher two .* has no calibration"):
        select_sql(store.path, query, tmp_path / "a.arrow")
    path = select_sql(store.path, query, tmp_path / "b.arrow", deny_licences=["agpl*"])
    found = Selection.open(path)
    assert found.teachers == ("one",)
    assert found.metadata["calibrations"]["one"]["annotations"] == "val.json"
    raw = Selection.open(select_sql(store.path, "FROM boxes WHERE teacher = 'one'", tmp_path / "c"))
    assert raw.metadata["key"] != found.metadata["key"]


def test_denied_licences_are_out_of_sight_in_sql(maker: Any, tmp_path: Path) -> None:
    store = maker.store()
    maker.fill(store, maker.record("one"))
    maker.fill(store, maker.record("two", licence="AGPL-3.0"))
    for how, seen in (
        ({"deny_licences": ["AGPL*"]}, ["one"]),
        ({"licences": ["agpl*"]}, ["two"]),
        ({"licences": ["MIT"]}, []),
    ):
        connection = open_store(store.path, threads=1, **how)
        for view, column in (("boxes", "teacher"), ("runs", "teacher"), ("teachers", "name")):
            found = run_sql(connection, f"SELECT DISTINCT {column} AS t FROM {view}").to_pylist()
            assert [row["t"] for row in found] == seen
        licence = run_sql(connection, "SELECT DISTINCT licence FROM boxes").to_pylist()
        assert len(licence) == len(seen)
        connection.close()
    with pytest.raises(UsageError, match=r"licence that is admitted: AGPL-3\.0, Apache-2\.0"):
        select_sql(store.path, "FROM boxes", tmp_path / "none.arrow", licences=["MIT"])
