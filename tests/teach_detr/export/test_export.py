"""Boxes taken out of a store, read back as the other program would."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from box_store import (
    Boxes,
    BoxStore,
    DatasetInfo,
    ImageRow,
    TeacherRecord,
    image_ids_sha256,
    iter_results,
    load_coco,
)
from box_store.errors import DataError, UsageError
from teach_detr.cli import main
from teach_detr.export import export_boxes, spec_of


def test_coco_results_are_the_boxes_of_one_teacher(small_store, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    spec = spec_of("coco-results", teachers=["half"])
    assert export_boxes(small_store.path, "coco-results", out, spec) == (6, 3)
    found = list(iter_results(out))
    assert [row["image_id"] for row in found] == [2, 4, 6]
    assert found[0]["bbox"] == [10, 10, 42, 40]


def test_coco_annotations_are_read_back_with_ids_areas_and_scores(
    small_store, tmp_path: Path
) -> None:
    out = tmp_path / "labels.json"
    export_boxes(small_store.path, "coco", out, spec_of("coco", teachers=["half"]))
    truth, ours = load_coco(small_store.annotations), load_coco(out, guesses="keep")
    # an image that was seen and has nothing in it is an image; its emptiness is known
    assert ours.image_ids == truth.image_ids
    assert ours.by_id == truth.by_id
    assert ours.categories == truth.categories
    assert not ours.problems
    for image_id in truth.image_ids:
        wanted = truth.annotations_of(image_id).boxes_xywh if image_id % 2 == 0 else []
        np.testing.assert_array_equal(
            ours.annotations_of(image_id).boxes_xywh, np.reshape(wanted, (-1, 4))
        )
    rows = json.loads(out.read_text())["annotations"]
    assert [row["id"] for row in rows] == [1, 2, 3]
    assert [row["area"] for row in rows] == [row["bbox"][2] * row["bbox"][3] for row in rows]
    assert {(row["iscrowd"], row["score"]) for row in rows} == {(0, 0.75)}


def test_images_that_a_teacher_never_saw_are_not_exported_as_empty(tmp_path: Path) -> None:
    store = made_store(tmp_path / "s", {1: ("a.jpg", []), 2: ("b.jpg", None)})
    out = tmp_path / "labels.json"
    assert export_boxes(store, "coco", out, spec_of("coco")) == (1, 0)
    assert load_coco(out).image_ids == (1,)


def test_yolo_text_gives_the_boxes_back_to_a_millionth(tmp_path: Path) -> None:
    corners = [[0.0625, 1.5, 333.3125, 200.9375], [10, 20, 30, 479]]
    store = made_store(tmp_path / "s", {1: ("deep/a.jpg", corners), 2: ("b.jpg", [])})
    out = tmp_path / "yolo"
    assert export_boxes(store, "yolo", out, spec_of("yolo")) == (2, 2)
    rows = np.loadtxt(out / "labels" / "deep" / "a.txt")
    assert rows[:, 0].tolist() == [1, 1]
    centres, sides = rows[:, 1:3] * (640, 480), rows[:, 3:] * (640, 480)
    np.testing.assert_allclose(
        np.concatenate([centres - sides / 2, centres + sides / 2], 1), corners, atol=1e-5
    )
    np.testing.assert_allclose(
        rows[0, 1:] * (640, 480, 640, 480), [166.6875, 101.21875, 333.25, 199.4375], rtol=1e-6
    )
    assert (out / "labels" / "b.txt").read_text() == ""
    export_boxes(store, "yolo", tmp_path / "scored", spec_of("yolo"), with_scores=True)
    scored = np.loadtxt(tmp_path / "scored" / "labels" / "deep" / "a.txt")
    assert scored[:, 5].tolist() == [0.75, 0.75]


def test_yolo_names_its_classes_whatever_they_are_called(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    names = ['a "quoted": name', "no\nline # comment", "\N{CAT FACE}", "a\u2028b"]
    store = made_store(tmp_path / "s", {1: ("a.jpg", [])}, names=names)
    export_boxes(store, "yolo", tmp_path / "yolo", spec_of("yolo"))
    data = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text(encoding="utf-8"))
    assert data["names"] == dict(enumerate(names))
    assert (data["train"], data["val"]) == ("images", "images")


@pytest.mark.parametrize("form", ["yolo", "fiftyone"])
@pytest.mark.parametrize("file_name", ["../../out.jpg", "/etc/passwd.jpg"])
def test_an_image_name_cannot_lead_out_of_the_folder(
    tmp_path: Path, form: Any, file_name: str
) -> None:
    store = made_store(tmp_path / "s", {1: (file_name, [[0, 0, 9, 9]])})
    images = tmp_path / "images"
    images.mkdir()
    with pytest.raises(DataError, match="image"):
        export_boxes(store, form, tmp_path / "deep" / "x", spec_of(form), images=images)
    assert not list(tmp_path.rglob("out.*"))


def test_two_images_that_would_share_a_text_file_are_named(tmp_path: Path) -> None:
    store = made_store(tmp_path / "s", {1: ("a.jpg", []), 2: ("a.png", [])})
    with pytest.raises(DataError, match=r"a\.jpg and a\.png"):
        export_boxes(store, "yolo", tmp_path / "yolo", spec_of("yolo"))


def test_csv_has_a_row_for_each_box_of_each_teacher(small_store, tmp_path: Path) -> None:
    out = tmp_path / "boxes.csv"
    export_boxes(small_store.path, "csv", out, spec_of("csv"))
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image_id"], row["teacher"]) for row in rows[:3]] == [
        ("1", "oracle"),
        ("2", "half"),
        ("2", "oracle"),
    ]
    assert len(rows) == 9
    first = rows[0]
    assert (first["category"], first["file_name"]) == ("cat", "1.jpg")
    assert [float(first[name]) for name in ("x1", "y1", "x2", "y2", "score")] == [
        *(10, 10, 51, 50),
        0.75,
    ]


def test_fiftyone_finds_every_image_and_each_label_says_its_teacher(
    small_store, tmp_path: Path
) -> None:
    images = tmp_path / "photos"
    images.mkdir()
    for i in range(1, 7):
        (images / f"{i}.jpg").write_bytes(b"photo %d" % i)
    out = tmp_path / "set"
    export_boxes(small_store.path, "fiftyone", out, spec_of("fiftyone"), images=images)
    labels = json.loads((out / "labels.json").read_text())
    assert len(labels["annotations"]) == 9
    assert {row["teacher"] for row in labels["annotations"]} == {"oracle", "half"}
    for image in labels["images"]:
        assert (out / "data" / image["file_name"]).read_bytes() == b"photo %d" % image["id"]
    assert load_coco(out / "labels.json", guesses="keep").n_boxes == 9


def test_fiftyone_gets_a_list_where_links_cannot_be_made(
    small_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    out = tmp_path / "set"
    export_boxes(small_store.path, "fiftyone", out, spec_of("fiftyone"), images=tmp_path)
    listed = json.loads((out / "data.json").read_text())
    assert listed["3.jpg"] == str(tmp_path / "3.jpg")
    assert not (out / "data").exists()


@pytest.mark.parametrize(
    ("where", "n_boxes"),
    [
        (["area>=1800"], 2),
        (["area>=1800", "category=cat"], 1),
        (["category!=cat"], 3),
        (["category = dog, cat"], 6),
        (["image_id=1,2,5"], 3),
        (["width<45", "height<=40"], 4),
        (["score>0.75"], 0),
    ],
)
def test_conditions_leave_what_fits_all_of_them(
    small_store, tmp_path: Path, where: list[str], n_boxes: int
) -> None:
    spec = spec_of("csv", teachers=["oracle"], where=where)
    assert export_boxes(small_store.path, "csv", tmp_path / "o.csv", spec) == (6, n_boxes)


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("area", "expected FIELD"),
        ("aera>3", "area"),
        ("area>big", "expected a number"),
        ("category>cat", "= or !="),
        ("1=1; DROP TABLE boxes", "no field"),
    ],
)
def test_a_condition_that_cannot_be_read_is_a_sentence(
    small_store, tmp_path: Path, where: str, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        export_boxes(small_store.path, "csv", tmp_path / "o.csv", spec_of("csv", where=[where]))


def test_the_command_fuses_or_asks_which_teacher(
    small_store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def call(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["export", str(small_store.path), *map(str, arguments)])
        captured = capfd.readouterr()
        return int(ended.value.code or 0), captured.out + captured.err

    code, text = call("--format", "coco", "--out", tmp_path / "a.json")
    assert code != 0
    assert "--fused" in text
    code, text = call("--format", "coco", "--out", tmp_path / "a.json", "--fused")
    assert code == 0, text
    assert load_coco(tmp_path / "a.json", guesses="keep").n_boxes > 0
    code, text = call(
        *("--format", "coco", "--out", tmp_path / "b.json", "--deny-licence", "AGPL*")
    )
    assert code == 0, text
    assert load_coco(tmp_path / "b.json", guesses="keep").n_boxes == 6
    code, text = call("--format", "fiftyone", "--out", tmp_path / "f")
    assert code != 0
    assert "--images" in text
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    code, text = call("--format", "yolo", "--out", tmp_path / "full", "--teacher", "half")
    assert code != 0
    assert "empty folder" in text


def split_file(path: Path, images: dict[int, str]) -> Path:
    rows = [{"id": i, "file_name": n, "width": 640, "height": 480} for i, n in images.items()]
    categories = [{"id": 5 * i, "name": n} for i, n in enumerate(["cat", "dog"])]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": rows, "annotations": [], "categories": categories}))
    return path


def test_results_of_one_split_of_several(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    box = [[5.0, 5.0, 50.0, 60.0]]
    store = made_store(
        tmp_path / "s", {1: ("a.jpg", box), 2: ("b.jpg", box * 2), 3: ("c.jpg", box)}
    )
    val = split_file(tmp_path / "d/annotations/instances_val.json", {2: "b.jpg", 9: "z.jpg"})

    def call(*arguments: object) -> tuple[int, str]:
        words = [
            "export",
            str(store),
            "--format",
            "coco-results",
            "--out",
            str(tmp_path / "r.json"),
        ]
        with pytest.raises(SystemExit) as ended:
            main([*words, *map(str, arguments)])
        captured = capfd.readouterr()
        return int(ended.value.code or 0), captured.out + captured.err

    for which in (("--annotations", val), ("--data", tmp_path / "d", "--split", "val")):
        code, text = call(*which, "--json")
        assert code == 0, text
        said = json.loads(text)
        assert (said["images"], said["boxes"], said["format"]) == (1, 2, "coco-results")
        assert {row["image_id"] for row in json.loads((tmp_path / "r.json").read_text())} == {2}
    code, text = call("--split", "val")
    assert code == 1
    assert "has no split 'val': its images name none" in text
    other = split_file(tmp_path / "o.json", {1: "x.jpg", 2: "y.jpg", 3: "c.jpg"})
    code, text = call("--annotations", other)
    assert code == 1
    assert "1 is a.jpg (640 x 480) there and x.jpg (640 x 480) here; image 2 is b.jpg" in text
    nobody = split_file(tmp_path / "n.json", {77: "a.jpg"})
    code, text = call("--annotations", nobody)
    assert code == 1
    assert "none of the 3 images" in text


def made_store(
    path: Path,
    images: dict[int, tuple[str, list[list[float]] | None]],
    names: list[str] | None = None,
) -> Path:
    """One teacher; of each image id the file name and corners, None where it failed."""
    from box_store import Categories

    names = names or ["cat", "dog"]
    categories = Categories.from_coco([{"id": 5 * i, "name": n} for i, n in enumerate(names)])
    store = BoxStore.create(path, categories, DatasetInfo("set", "0" * 64, len(images)))
    record = TeacherRecord(
        name="one",
        adapter="onnx",
        model="m",
        weights_sha256="",
        licence="MIT",
        class_map={},
        options={},
        image_ids_sha256=image_ids_sha256(images),
        unit_size=10,
        n_images=len(images),
        n_units=1,
    )
    store.register(record)
    rows = []
    for image_id, (file_name, corners) in images.items():
        if corners is None:
            rows.append(ImageRow(image_id, file_name, 640, 480, None, "corrupt", "broken"))
            continue
        n = len(corners)
        boxes = Boxes(np.reshape(corners, (-1, 4)), np.full(n, 0.75), np.full(n, 5), 640, 480)
        rows.append(ImageRow(image_id, file_name, 640, 480, boxes))
    store.write_unit("one", 0, rows)
    return path


def test_a_category_may_have_a_comma(tmp_path: Path) -> None:
    store = made_store(tmp_path / "s", {1: ("a.jpg", [[5, 5, 50, 60]])}, ["cat, big", "dog"])
    spec = spec_of("csv", where=["category=cat, big"])
    assert export_boxes(store, "csv", tmp_path / "x.csv", spec)[0] == 1
