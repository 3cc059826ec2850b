from typing import Any

import pytest

from box_store.check import check_store
from box_store.errors import DataError, FingerprintMismatch, UsageError
from box_store.results import importing as coco_import
from box_store.results.importing import import_results
from box_store.store.reader import boxes_of, read_boxes, read_images
from box_store.store.store import BoxStore


def entry(image_id: int = 7, category_id: int = 1, score: float = 0.5, bbox: Any = None) -> dict:
    box = [10, 10, 20, 20] if bbox is None else bbox
    return {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}


def test_results_in_any_order_become_a_teacher(maker: Any) -> None:
    store = maker.store()
    results = maker.json_file(
        "r.json", [entry(27, 2, 0.3), entry(7, 1, 0.2), entry(27, 18, 0.9), entry(7, 1, 0.4)]
    )
    report = import_results(
        store, "lab", [results], maker.images(6), unit_size=2, model="DINO", licence="MIT"
    )
    assert (report.n_boxes, report.units_written, report.units_present) == (4, 3, 0)
    assert read_boxes(store, "lab")["category_id"].to_pylist() == [1, 1, 18, 2]
    assert store.record("lab").model == "DINO"
    assert store.record("lab").adapter == "import"
    # an image that the results do not mention was seen, and nothing found
    assert len(boxes_of(store, "lab", 57)) == 0
    assert check_store(store.path).problems == []


def test_several_files_are_one_teacher(maker: Any) -> None:
    store = maker.store()
    parts = [maker.json_file(f"{i}.json", [entry(i)]) for i in (7, 17)]
    assert import_results(store, "lab", parts, maker.images(6)).n_boxes == 2


def test_many_boxes_go_through_temporary_files(maker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_import, "_HELD", 3)
    store = maker.store()
    rows = [entry(7 + 10 * (i % 6), score=i / 50) for i in range(50)]
    import_results(store, "lab", [maker.json_file("r.json", rows)], maker.images(6), unit_size=2)
    assert read_boxes(store, "lab").num_rows == 50
    assert not list(store.path.glob(".import-*"))


def test_an_import_is_done_exactly_once(maker: Any) -> None:
    store = maker.store()
    results = maker.json_file("r.json", [entry()])
    import_results(store, "lab", [results], maker.images(6))
    again = import_results(store, "lab", [results], maker.images(6))
    assert (again.units_written, again.units_present) == (0, 1)
    assert read_boxes(store, "lab").num_rows == 1


def test_an_interrupted_import_goes_on(maker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = maker.store()
    results = maker.json_file("r.json", [entry(i) for i in (7, 27, 47)])
    write_unit = BoxStore.write_unit

    def interrupted(self: BoxStore, name: str, unit: int, rows: Any) -> bool:
        if unit == 1:
            raise KeyboardInterrupt
        return write_unit(self, name, unit, rows)

    with monkeypatch.context() as patch:
        patch.setattr(BoxStore, "write_unit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            import_results(store, "lab", [results], maker.images(6), unit_size=2)
    assert store.units_done("lab") == {0}
    report = import_results(store, "lab", [results], maker.images(6), unit_size=2)
    assert (report.units_written, report.units_present) == (2, 1)
    assert read_boxes(store, "lab").num_rows == 3


def test_other_results_under_the_same_name_are_refused(maker: Any) -> None:
    store = maker.store()
    import_results(store, "lab", [maker.json_file("a.json", [entry()])], maker.images(6))
    other = maker.json_file("b.json", [entry(score=0.7)])
    with pytest.raises(FingerprintMismatch, match="weights_sha256"):
        import_results(store, "lab", [other], maker.images(6))


def test_images_default_to_those_that_other_teachers_saw(maker: Any) -> None:
    store = maker.store()
    results = maker.json_file("r.json", [entry()])
    with pytest.raises(UsageError, match="knows no images yet"):
        import_results(store, "lab", [results])
    maker.fill(store, maker.record())
    import_results(store, "lab", [results])
    assert read_images(store, "lab").num_rows == 6


def test_only_listed_images_may_be_covered(maker: Any) -> None:
    store = maker.store()
    results = maker.json_file("r.json", [entry(7), entry(57)])
    import_results(store, "lab", [results], maker.images(6), only_listed=True)
    assert read_images(store, "lab")["image_id"].to_pylist() == [7, 57]
    assert boxes_of(store, "lab", 17) is None


def test_boxes_are_cut_and_empty_ones_counted(maker: Any) -> None:
    store = maker.store()
    rows = [
        entry(bbox=[-5, -5, 15, 15]),
        entry(bbox=[0, 0, 0, 5]),
        entry(bbox=[700, 0, 5, 5]),
        entry(score=0.001),
    ]
    results = maker.json_file("r.json", rows)
    report = import_results(store, "lab", [results], maker.images(6), score_floor=0.01)
    assert report.dropped == {"no area": 1, "outside its image": 1, "below the score floor": 1}
    found = boxes_of(store, "lab", 7)
    assert found is not None
    assert found.boxes_xyxy.tolist() == [[0, 0, 10, 10]]


def test_wrong_ids_are_named_and_nothing_is_imported(maker: Any) -> None:
    store = maker.store()
    rows = [entry(1), entry(2), entry(2), entry(7, 0), entry(7, 3)]
    with pytest.raises(DataError) as caught:
        import_results(store, "lab", [maker.json_file("r.json", rows)], maker.images(6))
    text = str(caught.value)
    assert "3 detections are of 2 images that the data set does not have, such as 1, 2" in text
    assert "2 detections have unknown category ids: 0, 3; the table has 4 ids" in text
    assert "look like positions from 0" in text
    assert store.teachers == {}
    assert not list(store.path.glob(".import-*"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (entry(score=1.5), "entry 0 has the score 1.5, expected 0..1"),
        (entry(score="high"), "entry 0 has the score 'high'"),  # type: ignore[arg-type]
        (entry(bbox=[1, 2, 3]), r"entry 0 has the bbox \[1, 2, 3\]"),
        (entry(bbox=[1, 2, 3, None]), "entry 0 has the bbox"),
        (entry(bbox=[1, 2, 3, float("inf")]), "entry 0 has the bbox"),
    ],
)
def test_values_that_are_no_detection_are_named(maker: Any, row: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        import_results(maker.store(), "lab", [maker.json_file("r.json", [row])], maker.images(6))


def test_the_same_file_twice_is_refused(maker: Any) -> None:
    files = [maker.json_file("a.json", [entry()]), maker.json_file("b.json", [entry()])]
    with pytest.raises(DataError, match="every detection would count twice"):
        import_results(maker.store(), "lab", files, maker.images(6))


def test_missing_files_are_named(maker: Any) -> None:
    with pytest.raises(DataError, match="no COCO results file at"):
        import_results(maker.store(), "lab", [maker.folder / "no.json"], maker.images(6))
    with pytest.raises(UsageError, match="no results file"):
        import_results(maker.store(), "lab", [], maker.images(6))


def test_what_is_cut_and_rounded_is_said(maker: Any) -> None:
    store, image = maker.store(), maker.images(6)[0]
    rows = [
        entry(bbox=[image.width - 10, 5, 30, 8]),
        entry(bbox=[-2, 5, 30, 8]),
        # a rounding error of another program is not a box that was cut
        entry(bbox=[0, 5, image.width + 0.01, 8]),
        entry(score=1e-4),
        entry(score=0.0),
        entry(),
    ]
    rows = [row | {"image_id": image.id} for row in rows]
    report = import_results(store, "lab", [maker.json_file("r.json", rows)], maker.images(6))
    assert (report.n_boxes, report.n_cut, report.n_faint) == (6, 2, 1)
    said = " ".join(report.remarks())
    for words in ("1/16 px", "1/4096", "2 boxes reached out", "1 score below 1/8192"):
        assert words in said
    again = import_results(store, "lab", [maker.json_file("r.json", rows)], maker.images(6))
    assert again.remarks() == [], "nothing was stored this time"


def test_boxes_that_are_there_twice_are_remarked_on(maker: Any) -> None:
    rows = [entry(score=n / 64) for n in range(8)]
    for name, written, n in (("once", rows, 0), ("twice", [*rows, *rows[:3]], 3)):
        results = maker.json_file(f"{name}.json", written)
        report = import_results(maker.store(name), "lab", [results], maker.images(6))
        assert report.n_repeated == n
        assert ("3 of 11 boxes are there before" in " ".join(report.remarks())) == bool(n)


def test_boxes_in_parts_of_1_and_corners_are_remarked_on(maker: Any) -> None:
    for name, box, words in (
        ("parts", [0.1, 0.2, 0.3, 0.4], "look like parts of 1"),
        ("corners", [600, 400, 630, 470], "look like corners"),
        ("sound", [600, 400, 30, 70], ""),
    ):
        results = maker.json_file(f"{name}.json", [entry(bbox=box), entry(17, bbox=box)])
        report = import_results(maker.store(name), "lab", [results], maker.images(6))
        said = " ".join(report.remarks())
        assert words in said
        assert words or "look like" not in said


def test_detections_that_name_another_file_are_refused(maker: Any) -> None:
    named = [entry() | {"file_name": "photos/000000000017.jpg"}]
    store = maker.store()
    with pytest.raises(DataError, match=r"image 7 has the file_name .* 7 is 000000000007\.jpg"):
        import_results(store, "lab", [maker.json_file("r.json", named)], maker.images(6))
    assert not store.teachers
    right = [entry() | {"file_name": "photos/000000000007.jpg"}]
    import_results(store, "lab", [maker.json_file("r.json", right)], maker.images(6))


@pytest.mark.parametrize("name", ["007", "1e5", "2024-01-01"])
def test_names_that_readers_of_columns_retype_are_remarked_on(maker: Any, name: str) -> None:
    results = maker.json_file("r.json", [entry()])
    report = import_results(maker.store(), name, [results], maker.images(6))
    assert "number or a date" in " ".join(report.remarks())
