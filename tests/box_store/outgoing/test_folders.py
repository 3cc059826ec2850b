"""Every form that is written is read again: the same images, classes and boxes, bit for bit."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from box_store.errors import UsageError
from box_store.forms.opening import DataSet, open_data
from box_store.outgoing.data_set import write_folder
from box_store.outgoing.sheet import Mark, Part, Sheet, corners_of
from box_store.outgoing.table import FOLDER_FORMS, WRITERS, FolderForm
from tests.box_store.forms.conftest import EXPECTED, Builder, contents
from tests.box_store.forms.layouts import WRITERS as LAYOUTS
from tests.box_store.forms.layouts import coco_layout, cvat_xml, label_studio, voc

each_form = pytest.mark.parametrize("form", FOLDER_FORMS)
# as `open_data` needs it to read crowds again
_OPTIONS = {"voc": ",difficult=crowd"}


def boxes(data: DataSet) -> dict[str, list[tuple[str, list[float], bool]]]:
    """Class, float32 corner and extent and crowd of the boxes, by the name of the image."""
    found = {}
    for split in data.splits:
        for image in split.coco.images:
            rows = split.coco.annotations_of(image.id)
            names = [split.coco.categories.by_id(int(key)).name for key in rows.category_ids]
            found[f"{split.name}/{Path(image.file_name).name}"] = list(
                zip(names, rows.boxes_xywh.tolist(), rows.iscrowd.tolist(), strict=True)
            )
    return found


@pytest.mark.parametrize("name", ["custom names", "Roboflow", "YOLO", "VOC", "CVAT's XML"])
def test_any_form_in_any_other(build: Builder, tmp_path: Path, name: str) -> None:
    LAYOUTS[name][1](build)
    data = open_data(build.root)
    for form in FOLDER_FORMS:
        account = write_folder(data, form, tmp_path / form)
        assert (account.images, account.marks, account.missing, account.lost) == (3, 6, 0, {})
        again = open_data(tmp_path / form)
        assert again.form == form
        renamed = {"valid": "val"}
        found = {renamed.get(split, split): rows for split, rows in contents(again).items()}
        assert found == EXPECTED, form


@each_form
def test_fractions_of_pixels_come_back_bit_for_bit(
    build: Builder, tmp_path: Path, form: FolderForm
) -> None:
    rng = np.random.default_rng(0)
    size = (641, 479)
    build.image("train/a.jpg", size)
    low = rng.uniform(0, 0.98, (300, 2))
    high = low + rng.uniform(0.001, 1, (300, 2)) * (1 - low)
    corners = np.concatenate([low, high], 1) * [*size, *size]
    corners[:100] = corners[:100].round(2)
    rows = [
        {"id": k, "image_id": 1, "category_id": 1 + k % 2, "bbox": [x, y, x2 - x, y2 - y]}
        for k, (x, y, x2, y2) in enumerate(corners.tolist())
    ]
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": size[0], "height": size[1]}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": 'a <b> & "c"'}],
        "annotations": rows,
    }
    build.json("annotations/instances_train.json", document)
    before = open_data(build.root)
    write_folder(before, form, tmp_path / "out")
    train = open_data(tmp_path / "out").split("train")
    assert boxes(before)["train/a.jpg"] == [
        (*row, False)
        for row in zip(
            [train.coco.categories.by_id(int(k)).name for k in train.coco.table.category_ids],
            train.coco.table.boxes_xywh.tolist(),
            strict=True,
        )
    ]
    assert not train.coco.problems


def test_written_numbers_are_short() -> None:
    found = list(corners_of(np.array([[10.2, 0, 50.3, 80]], np.float32), (100, 80)))
    assert found == [(10.2, 0, 60.5, 80)]


@pytest.mark.parametrize("form", ["voc", "labelme", "cvat", "label-studio"])
def test_crowds_stay_crowds(build: Builder, tmp_path: Path, form: FolderForm) -> None:
    document = build.coco(("a.jpg",))
    document["annotations"][1]["iscrowd"] = 1
    build.json("annotations/instances_train.json", document)
    build.image("train/a.jpg")
    write_folder(open_data(build.root), form, tmp_path / "out")
    again = open_data(f"{tmp_path / 'out'}{_OPTIONS.get(form, '')}")
    assert again.splits[0].coco.table.iscrowd.tolist() == [False, True]


def test_what_yolo_cannot_say_is_counted(build: Builder, tmp_path: Path) -> None:
    document = build.coco(("a.jpg",))
    document["annotations"][0]["iscrowd"] = 1
    build.json("annotations/instances_train.json", document)
    build.image("train/a.jpg")
    account = write_folder(open_data(build.root), "yolo", tmp_path / "out")
    assert (account.marks, account.lost) == (1, {"crowds": 1})


@each_form
def test_images_of_one_name_stay_two(build: Builder, tmp_path: Path, form: FolderForm) -> None:
    for split, stem in (("train", "a"), ("val", "b")):
        document = build.coco((f"{stem}.jpg",))
        document["images"][0] |= {"id": int(split == "val"), "file_name": "deep/x.jpg"}
        document["images"].append({**document["images"][0], "id": 7, "file_name": "deep/x.png"})
        for row in document["annotations"]:
            row["image_id"] = int(split == "val")
        build.json(f"annotations/instances_{split}.json", document)
        build.image(f"{split}/deep/x.jpg")
        build.image(f"{split}/deep/x.png")
    account = write_folder(open_data(build.root), form, tmp_path / "out")
    assert account.images == 4
    again = open_data(tmp_path / "out")
    assert [len(split.coco.images) for split in again.splits] == [2, 2]
    assert sorted(len(rows) for rows in boxes(again).values()) == [0, 0, 1, 2]


@each_form
def test_a_missing_image_is_left_out_and_counted(
    build: Builder, tmp_path: Path, form: FolderForm
) -> None:
    coco_layout(build)
    (build.root / "train/a.jpg").unlink()
    account = write_folder(open_data(build.root), form, tmp_path / "out")
    assert (account.images, account.missing) == (2, 1)


def test_nothing_is_written_over_anything(build: Builder, tmp_path: Path) -> None:
    voc(build)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(UsageError, match="is not empty"):
        write_folder(open_data(build.root), "yolo", tmp_path / "out")
    with pytest.raises(UsageError, match="lies in the data set"):
        write_folder(open_data(build.root), "yolo", build.root / "yolo")


GUESSES = (
    Mark("dog", (0, 0, 20, 30), 0.83, "vit"),
    Mark("car", (40, 10, 80, 60), 0.31, "swin"),
)
LABEL = Mark("car", (5, 5, 20, 20))


@pytest.mark.parametrize("form", ["voc", "labelme", "cvat", "label-studio"])
def test_a_guess_is_no_label_until_a_person_says_so(
    build: Builder, tmp_path: Path, form: FolderForm
) -> None:
    build.image("photos/a.jpg")
    sheet = Sheet(1, "a.jpg", 80, 60, (*GUESSES, LABEL), unlabelled=True)
    out = tmp_path / "out"
    WRITERS[form]([Part("all", build.root / "photos", [sheet])], ("car", "dog"), out, "guesses")
    coco = open_data(out).splits[0].coco
    assert coco.table.unlabelled.tolist() == [True]
    kinds = [kind for kind in coco.problems if "nobody confirmed" in kind]
    assert kinds
    kept = open_data(f"{out},guesses=keep").splits[0].coco
    assert len(kept.annotations_of(1)) == 3
    with pytest.raises(UsageError, match="expected drop or keep"):
        open_data(f"{out},guesses=maybe")


def test_scores_and_teachers_are_kept(build: Builder, tmp_path: Path) -> None:
    build.image("photos/a.jpg")
    for form in FOLDER_FORMS:
        sheet = Sheet(1, "a.jpg", 80, 60, GUESSES, unlabelled=form != "yolo")
        parts = [Part("all", build.root / "photos", [sheet])]
        WRITERS[form](parts, ("car", "dog"), tmp_path / form, "guesses of vit")
    root = ET.parse(tmp_path / "cvat/annotations.xml").getroot()
    box = root.find("image/box")
    assert box is not None
    told = {a.get("name"): a.text for a in box.iter("attribute")}
    assert (box.get("source"), told["score"], told["teacher"]) == ("auto", "0.83", "vit")
    (task,) = json.loads((tmp_path / "label-studio/tasks.json").read_text())
    (prediction,) = task["predictions"]
    assert [row["score"] for row in prediction["result"]] == [0.83, 0.31]
    assert prediction["result"][0]["meta"]["text"] == ["vit 0.83"]
    assert task["data"]["image"] == "/data/local-files/?d=images/a.jpg"
    shapes = json.loads((tmp_path / "labelme/a.json").read_text())["shapes"]
    assert [(shape["score"], shape["teacher"]) for shape in shapes] == [
        (0.83, "vit"),
        (0.31, "swin"),
    ]


def test_a_person_who_edits_a_box_of_cvat_makes_it_a_label(build: Builder) -> None:
    cvat_xml(build)
    path = build.root / "annotations.xml"
    text = path.read_text().replace('source="manual"', 'source="auto"', 2)
    path.write_text(text)
    data = open_data(build.root)
    train = data.split("train").coco
    assert [len(train.annotations_of(i)) for i in train.image_ids] == [0, 3]
    assert train.table.unlabelled.tolist() == [True, False]
    path.write_text(text.replace('source="auto"', 'source="semi-auto"', 1))
    train = open_data(build.root).split("train").coco
    assert len(train.annotations_of(train.image_ids[0])) == 1
    ticked = '<attribute name="confirmed">true</attribute></box>'
    path.write_text(text.replace("</box>", ticked, 2))
    train = open_data(build.root).split("train").coco
    assert train.table.unlabelled.tolist() == [False, False]


def test_tasks_that_nobody_did_are_unlabelled(build: Builder) -> None:
    label_studio(build)
    path = build.root / "project-1.json"
    tasks = json.loads(path.read_text())
    done = tasks[0].pop("annotations")
    tasks[0]["annotations"] = []
    tasks[1]["annotations"][0]["was_cancelled"] = True
    tasks[2] |= {"predictions": done}
    path.write_text(json.dumps(tasks))
    data = open_data(build.root)
    assert data.split("train").coco.table.unlabelled.tolist() == [True, True]
    assert data.split("val").coco.table.unlabelled.tolist() == [False]
    assert data.split("val").coco.n_boxes == 1


def test_an_image_that_nobody_looked_at_stays_so(build: Builder, tmp_path: Path) -> None:
    document = build.coco(("a.jpg", "c.jpg"))
    document["images"][1]["labelled"] = False
    document["annotations"] = document["annotations"][:2]
    build.json("annotations/instances_train.json", document)
    for name in ("a.jpg", "c.jpg"):
        build.image(f"train/{name}")
    data = open_data(build.root)
    assert data.splits[0].coco.table.unlabelled.tolist() == [False, True]
    for form in ("cvat", "label-studio"):
        write_folder(data, form, tmp_path / form)
        again = open_data(tmp_path / form).splits[0].coco
        assert again.table.unlabelled.tolist() == [False, True]
