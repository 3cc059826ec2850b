"""The report page: what it says equals the metrics and the SQL, and data stays text."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from box_store import (
    BoxStore,
    DatasetInfo,
    load_coco,
)
from box_store.calibration.score_map import Calibration, Part, Quality, ScoreMap, write_calibration
from box_store.errors import DataError
from box_store.query import example_query, open_store, run_sql
from student_train.evaluation.tables import percent
from teach_detr.assessment.scoring import score_teachers
from teach_detr.cli import main
from teach_detr.report import ReportOptions, write_report
from teach_detr.report.findings import gather
from teach_detr.report.page import render
from teach_detr.report.samples import choose
from tests.teach_detr.report.page import Page


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures for the images of `small_store`, all but the last."""
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 255, (80, 100, 3), np.uint8)
    for i in range(1, 6):
        Image.fromarray(pixels).save(folder / f"{i}.jpg")
    return folder


@pytest.fixture(scope="module")
def page(small_store, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    out = tmp_path_factory.mktemp("report") / "report.html"
    write_report(small_store.path, out, annotations=small_store.annotations, images=photos)
    return Page(out.read_text(encoding="utf-8"))


def test_ap_is_that_of_the_teachers_command(page: Page, small_store) -> None:
    scores = score_teachers(BoxStore.open(small_store.path), small_store.annotations)
    shown = page.rows("COCO metrics")
    assert set(shown) == {"half", "oracle", "fused"}
    for score in scores:
        values = [percent(value) for value in score.metrics.values.values()]
        counts = [str(score.metrics.n_images), str(score.metrics.n_detections)]
        assert shown[score.teacher] == counts + values
    for row in scores[0].metrics.per_class:
        assert page.rows("AP by class, in percent")[row.name][:2] == [
            str(row.n_truth),
            percent(row.AP),
        ]


def test_numbers_are_those_of_the_documented_queries(page: Page, small_store) -> None:
    connection = open_store(small_store.path, small_store.annotations)
    try:
        calibration, agreement, worst, errors = (
            run_sql(connection, example_query(name).sql).to_pylist()
            for name in ("calibration", "agreement", "worst_images", "errors")
        )
    finally:
        connection.close()
    for row in calibration:
        numbers = (f"{row['mean_score']:.3f}", f"{row['precision']:.3f}")
        shown = page.tables[f"Numbers of {row['teacher']}"]
        assert [f"{row['from_score']:.1f}", str(row["boxes"]), *numbers] in shown
    assert page.rows("Expected calibration error, in percent")["half"][0] == "25.0"
    shown = page.rows("Boxes of the row's teacher that the column's has too, in percent")
    assert {(row["teacher"], row["other"]): percent(row["share"]) for row in agreement} == {
        ("half", "oracle"): shown["half"][1],
        ("oracle", "half"): shown["oracle"][0],
    }
    assert (shown["half"][1], shown["oracle"][0]) == ("100.0", "50.0")
    assert [row[1] for row in page.tables["Images with most mistakes"][1:]] == [
        str(row["image_id"]) for row in worst
    ]
    missed = {row["teacher"]: row["n"] for row in errors if row["kind"] == "missed"}
    assert page.rows("Boxes by outcome")["half"][-1] == str(missed["half"]) == "3"


def test_teachers_come_with_provenance_and_licence(page: Page) -> None:
    rows = page.rows("Provenance and licences")
    assert rows["half"][:6] == ["AGPL-3.0", "onnx", "half.onnx", "0" * 12, "2 of 2", "6"]
    assert "score_floor 0.01" in page.text


def test_the_page_loads_nothing_and_its_policy_names_its_own_script(page: Page) -> None:
    import base64
    import hashlib

    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "base")
        assert not any(name.startswith("on") or name == "style" for name in attributes), attributes
        source = attributes.get("src") or attributes.get("href") or "#"
        assert source.startswith(("#", "data:image/jpeg;base64,")), source
    (policy,) = (a["content"] for _, a in page.elements if "http-equiv" in a)
    assert policy is not None
    assert "default-src 'none'" in policy
    digest = base64.b64encode(hashlib.sha256(page.scripts[-1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_pictures_are_few_small_and_the_same_again(small_store, photos: Path, tmp_path) -> None:
    options = ReportOptions(n_samples=3, image_px=64, seed=4)
    names = ("first.html", "second.html")
    for name in names:
        written = write_report(
            small_store.path,
            tmp_path / name,
            annotations=small_store.annotations,
            images=photos,
            options=options,
        )
    assert written.pictures is not None
    shown = written.pictures.samples
    assert len(shown) + len(written.pictures.unreadable) == 3
    first, second = ((tmp_path / name).read_text() for name in names)
    assert first == second
    data = json.loads(Page(first).scripts[-2])
    assert [entry["name"] for entry in data["sets"]] == ["truth", "half", "oracle"]
    by_id = {sample.image_id: sample for sample in shown}
    assert [len(entry["boxes"]) for entry in data["images"]] == [2 if i % 2 else 3 for i in by_id]


def test_an_image_that_cannot_be_read_is_named_and_the_rest_is_shown(page: Page) -> None:
    assert sum(tag == "figure" and "data-image" in a for tag, a in page.elements) == 5
    assert "1 image could not be read, first 6.jpg" in page.text


def test_without_annotations_or_images_it_says_what_is_missing(small_store, tmp_path) -> None:
    out = tmp_path / "r.html"
    write_report(small_store.path, out)
    bare = Page(out.read_text())
    assert "COCO metrics" not in bare.tables
    assert bare.text.count("run the report again with --annotations FILE") == 3
    assert "images" not in bare.ids()
    assert "agreement" in bare.ids()


def test_an_empty_store_has_a_page(tmp_path: Path, small_store) -> None:
    coco = load_coco(small_store.annotations)
    BoxStore.create(tmp_path / "s", coco.categories, DatasetInfo("val", coco.sha256, 6))
    write_report(tmp_path / "s", tmp_path / "r.html", annotations=small_store.annotations)
    text = Page((tmp_path / "r.html").read_text()).text
    assert "no teacher yet" in text
    assert "it has none yet" in text


def test_annotations_of_other_categories_are_refused(small_store, tmp_path: Path) -> None:
    table = json.loads(small_store.annotations.read_text())
    table["categories"][0]["name"] = "lynx"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(table))
    with pytest.raises(DataError, match="has other categories than the store"):
        write_report(small_store.path, tmp_path / "r.html", annotations=other)
    assert not (tmp_path / "r.html").exists()


def test_ap_may_be_computed_on_a_part_which_the_page_tells(small_store) -> None:
    options = ReportOptions(metric_images=4)
    found = gather(small_store.path, small_store.annotations, options, lambda text: None)
    assert found.scores is not None
    assert {score.metrics.n_images for score in found.scores} == {4}
    assert "Computed on 4 images of the 6 that are annotated." in Page(render(found, None)).text


def test_samples_hold_the_worst_the_doubtful_and_others(small_store) -> None:
    found = gather(small_store.path, small_store.annotations, ReportOptions(), lambda text: None)
    found = dataclasses.replace(
        found,
        worst_images=[{"image_id": i} for i in (90, 80, 70)],
        missing_labels=[{"image_id": i} for i in (90, 60, 60, 50, 999)],
    )
    ids = list(range(100))
    chosen = choose(ids, found, ReportOptions(n_samples=8))
    assert list(chosen)[:4] == [90, 80, 60, 50]
    assert len(chosen) == 8
    assert chosen == choose(ids, found, ReportOptions(n_samples=8))
    assert chosen != choose(ids, found, ReportOptions(n_samples=8, seed=1))
    assert len(choose([1, 2], found, ReportOptions(n_samples=8))) == 2


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]):
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return int(ended.value.code or 0), *capfd.readouterr()

    return call


def test_the_command_ends_with_a_sentence(run, small_store, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "report.html"
    code, text, err = run(
        *("report", small_store.path, "--annotations", small_store.annotations),
        *("--images", photos, "--samples", 2, "--out", out),
    )
    assert code == 0, err
    assert "2 teachers, 9 boxes" in text
    assert "computing AP" in err
    assert Page(out.read_text()).ids() >= {"teachers", "ap", "images"}


def test_what_is_not_there_is_named(run, small_store, tmp_path: Path) -> None:
    for arguments, name in (
        ((tmp_path / "no-store",), "no-store"),
        ((small_store.path, "--annotations", tmp_path / "no.json"), "no.json"),
        ((small_store.path, "--images", tmp_path / "no-images"), "no-images"),
    ):
        code, _, err = run("report", *arguments, "--out", tmp_path / "r.html")
        assert code == 1
        assert name in err
        assert "Traceback" not in err
        assert not (tmp_path / "r.html").exists()


def test_calibrated_curves_are_drawn_where_a_calibration_is_stored(
    page: Page, small_store, tmp_path: Path
) -> None:
    path = tmp_path / "boxes"
    shutil.copytree(small_store.path, path)
    store = BoxStore.open(path)
    bands = Quality(0.25, 0.25, 0.0625, [])
    part = Part(3, 3, 3, bands, Quality(0.0, 0.0, 0.0, []))
    sure = ScoreMap("isotonic", ((0.0, 1.0), (1.0, 1.0)))
    fingerprint = store.record("oracle").fingerprint
    write_calibration(
        store,
        Calibration("oracle", fingerprint, sure, "<val>.json", "0" * 64, 0.5, 0, 0.5, part, part),
    )
    out = tmp_path / "report.html"
    write_report(path, out, annotations=small_store.annotations)
    html = out.read_text(encoding="utf-8")
    found = Page(html)
    assert found.rows("Expected calibration error, in percent") == {
        "half": ["25.0", "-", "25.0", "-"],
        "oracle": ["25.0", "0.0", "25.0", "0.0"],
    }
    stored = found.rows("Stored calibrations, on images held out from the fit, in percent")
    assert stored["oracle"] == ["isotonic", "<val>.json", "3", "25.0", "0.0", "6.2", "0.0"]
    assert html.count('calibrated curve"') == 1
    assert "No calibration is stored" in page.text
