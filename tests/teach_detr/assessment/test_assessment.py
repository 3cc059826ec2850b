"""What teachers are worth, on a store whose worth is known."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from box_store import (
    Boxes,
    BoxStore,
    FusionConfig,
    ImageRow,
    SelectionSpec,
    image_ids_sha256,
)
from box_store.calibration.score_map import (
    Calibration,
    Part,
    Quality,
    ScoreMap,
    read_calibration,
    write_calibration,
)
from box_store.errors import DataError
from teach_detr.assessment.assessment import assess
from teach_detr.assessment.tables import label_notes
from teach_detr.cli import main

# without the quota of the released code, which leaves few boxes of teachers that see little
SPEC = SelectionSpec(score_floor=0, fusion=FusionConfig(quota=False))


@pytest.fixture
def three(small_store, tmp_path: Path) -> BoxStore:
    """`oracle`, `half`, and `loud`, who is sure of one wrong box an image and saw four of six."""
    shutil.copytree(small_store.path, tmp_path / "boxes")
    store = BoxStore.open(tmp_path / "boxes")
    ids = [1, 2, 3, 4]
    record = replace(
        store.record("half"),
        name="loud",
        image_ids_sha256=image_ids_sha256(ids),
        n_images=4,
        n_units=1,
    )
    store.register(record)
    wrong = Boxes([[60, 50, 95, 78]], [0.9375], [3], 100, 80)
    store.write_unit("loud", 0, [ImageRow(i, f"{i}.jpg", 100, 80, wrong) for i in ids])
    return store


def test_gains_are_measured_on_images_that_all_saw(three: BoxStore, small_store) -> None:
    found = assess(three, small_store.annotations, SPEC)
    assert [score.teacher for score in found.scores] == ["half", "loud", "oracle", "fused"]
    assert [score.metrics.n_images for score in found.scores] == [6, 4, 6, 6]
    gain = found.fusion
    assert gain is not None
    assert (gain.n_images, gain.best, gain.best_ap) == (4, "oracle", pytest.approx(1))
    # the loud teacher's cats outrank the real ones: half of the precision of one class in two
    assert gain.fused_ap < 1
    assert gain.gain == pytest.approx(gain.fused_ap - 1)
    assert gain.added["loud"] == pytest.approx(gain.fused_ap - 1)
    assert gain.added["oracle"] > 0
    assert gain.added["half"] == pytest.approx(0)


def test_two_teachers_are_compared_with_each_other(three: BoxStore, small_store) -> None:
    spec = replace(SPEC, teachers=("oracle", "half"))
    found = assess(three, small_store.annotations, spec)
    assert [choice.teacher for choice in found.choices] == ["oracle", "half"]
    assert found.fusion is not None
    assert found.fusion.added == {"oracle": pytest.approx(0.5), "half": pytest.approx(0)}
    assert {(row["teacher"], row["other"]): row["share"] for row in found.agreement} == {
        ("oracle", "half"): 0.5,
        ("half", "oracle"): 1.0,
    }
    alone = assess(three, small_store.annotations, replace(SPEC, teachers=("half",)))
    assert (alone.fusion, alone.agreement) == (None, [])


def test_surety_is_that_of_raw_and_of_calibrated_scores(three: BoxStore, small_store) -> None:
    nothing = Quality(None, None, None, [])
    part = Part(0, 0, 0, nothing, nothing)
    sure = ScoreMap("isotonic", ((0.0, 1.0), (1.0, 1.0)))
    write_calibration(
        three,
        Calibration(
            *("oracle", three.record("oracle").fingerprint, sure, "val.json", "0" * 64),
            *(0.5, 0, 0.5, part, part),
        ),
    )
    found = assess(three, small_store.annotations, SPEC)
    oracle, loud = found.surety["oracle"], found.surety["loud"]
    # always right: saying 0.75 is wrong by 0.25, saying 1 by nothing
    assert oracle.error == pytest.approx(0.25)
    assert oracle.calibrated_error == pytest.approx(0)
    assert loud.error == pytest.approx(0.9375, abs=1e-3)
    assert (loud.calibrated_error, loud.calibration) == (None, None)
    told = {row["teacher"]: row for row in json.loads(json.dumps(found.to_json()))["teachers"]}
    assert told["oracle"]["calibration"]["method"] == "isotonic"
    assert "calibration" not in told["loud"]
    assert [row["name"] for row in told["half"]["per_class"]] == ["cat", "dog"]
    assert told["half"]["ARm"] == pytest.approx(0.5)


def test_calibration_lets_the_honest_outrank_the_loud(three: BoxStore, small_store) -> None:
    nothing = Quality(None, None, None, [])
    part = Part(0, 0, 0, nothing, nothing)
    for name, chance in (("oracle", 1.0), ("half", 1.0), ("loud", 0.01)):
        score_map = ScoreMap("isotonic", ((0.0, chance), (1.0, chance)))
        write_calibration(
            three,
            Calibration(
                *(name, three.record(name).fingerprint, score_map, "val.json", "0" * 64),
                *(0.5, 0, 0.5, part, part),
            ),
        )
    raw = assess(three, small_store.annotations, SPEC).fusion
    honest = assess(three, small_store.annotations, replace(SPEC, calibrated=True)).fusion
    assert raw is not None
    assert honest is not None
    assert raw.fused_ap < honest.fused_ap == pytest.approx(1)


def test_ap_can_be_of_some_images_only(three: BoxStore, small_store) -> None:
    found = assess(three, small_store.annotations, SPEC, max_images=3, seed=1)
    assert found.scores[-1].metrics.n_images == 3
    assert found.scores[-1].metrics.AP is not None


def test_annotations_with_holes_are_noticed() -> None:
    rows = [
        {"teacher": name, "mistakes": n, "shared": round(n * share), "share": share}
        for name, n, share in (("a", 100, 0.6), ("b", 100, 0.8), ("c", 5, 1.0))
    ]
    (note,) = label_notes(rows)
    assert note.startswith("b: 80 of 100 mistakes")


def test_calibrate_by_command_line(
    small_store, three: BoxStore, capfd, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["calibrate", str(three.path), "--annotations", str(small_store.annotations)]

    def run(*more: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*arguments, *more])
        return int(ended.value.code or 0), *capfd.readouterr()

    code, _, err = run()
    assert code == DataError.exit_code
    assert "teacher half cannot be calibrated: 1 of 1 boxes" in err

    monkeypatch.setattr("box_store.calibration.fitting.MIN_BOXES", 4)
    record = replace(three.record("loud"), name="fair")
    three.register(record)
    corners = [[10, 10, 51, 50], [60, 50, 95, 78]]
    rows = []
    for i in range(1, 5):
        boxes = Boxes(corners, [0.9375, 0.25], [3 if i % 2 else 7] * 2, 100, 80)
        rows.append(ImageRow(i, f"{i}.jpg", 100, 80, boxes))
    three.write_unit("fair", 0, rows)
    code, out, err = run("--teacher", "fair", "--held-out", "0", "--dry-run", "--json")
    assert code == 0, err
    (told,) = json.loads(out)["calibrations"]
    assert told["map"]["knots"] == [[0.25, 0.0], [0.9375, 1.0]]
    assert read_calibration(three, "fair") is None
    code, out, err = run("--teacher", "fair", "--held-out", "0", "--method", "temperature")
    assert code == 0, err
    assert "on the images fitted to" in out
    assert "--calibrated" in out
    found = read_calibration(three, "fair")
    assert found is not None
    assert found.map.temperature < 1
