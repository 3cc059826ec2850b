"""The same images and boxes, whatever form they lie in."""

from pathlib import Path

import pytest

from box_store.errors import DataError, UsageError
from box_store.forms.opening import annotations_of, open_data
from box_store.forms.table import FORMS
from tests.box_store.forms.conftest import (
    ALL,
    BOXES,
    EXPECTED,
    Builder,
    contents,
)
from tests.box_store.forms.layouts import WRITERS, csv_splits, roboflow, voc, yolo


@pytest.mark.parametrize("name", WRITERS)
def test_every_form_says_the_same(build: Builder, name: str) -> None:
    form, write, renamed = WRITERS[name]
    write(build)
    before = sorted(build.root.rglob("*"))
    data = open_data(build.root)
    found = {renamed.get(split, split): rows for split, rows in contents(data).items()}
    if form == "parquet":
        # images are named by their rows
        found = {
            split: dict(zip(EXPECTED[split], rows.values(), strict=True))
            for split, rows in found.items()
        }
    assert data.form == form, data.summary
    assert found == EXPECTED
    assert sorted(build.root.rglob("*")) == before, "nothing is written into the user's folder"
    # and every image is where the split says
    for split in data.splits:
        for image in split.coco.images:
            assert (split.images / image.file_name).is_file()


def test_there_is_a_case_for_every_form() -> None:
    assert {form for form, _, _ in WRITERS.values()} | {"photos"} == {form.name for form in FORMS}


def test_ids_are_unique_over_splits_of_forms_without_ids(build: Builder) -> None:
    voc(build)
    ids = [list(split.coco.image_ids) for split in open_data(build.root).splits]
    assert ids == [[1, 3], [2]]


def test_ids_that_restart_in_every_split_are_normal(build: Builder) -> None:
    roboflow(build)
    data = open_data(build.root)
    assert [list(split.coco.image_ids) for split in data.splits] == [[0, 1], [0]]
    assert [split.coco.split for split in data.splits] == ["train", "valid"]


def test_the_defaults_mean_the_only_split_for_a_purpose(build: Builder) -> None:
    roboflow(build)
    data = open_data(build.root)
    assert data.split("train2017").own_name == "train"
    assert data.split("val2017").coco.split == "valid"
    with pytest.raises(DataError, match=r"has no split 'vaild'.*Did you mean 'valid'"):
        data.split("vaild")


def test_photos_alone_can_be_labelled_and_not_compared_with(build: Builder) -> None:
    for name in BOXES:
        build.image(name)
    data = open_data(build.root)
    assert (data.form, [split.labelled for split in data.splits]) == ("photos", [False])
    assert len(data.splits[0].coco.images) == 3
    with pytest.raises(DataError, match="has no annotations"):
        annotations_of(build.root)


def test_one_split_of_several_by_name(build: Builder) -> None:
    yolo(build)
    assert [image.file_name for image in annotations_of(f"{build.root},split=val").images] == [
        "b.jpg"
    ]
    with pytest.raises(UsageError, match="splits train, val: say which"):
        annotations_of(build.root)


def test_a_path_with_commas_is_a_path(build: Builder) -> None:
    other = Builder(build.root / "photos,form=voc")
    voc(other)
    assert open_data(other.root).form == "voc"
    assert contents(open_data(f"{other.root},difficult=drop"))["val"] == {"b.jpg": []}


def test_what_could_be_two_forms_says_so(build: Builder) -> None:
    voc(build)
    csv_splits(build)
    data = open_data(build.root)
    assert data.form == "voc"
    assert "could also be read as CSV" in data.notes[0]
    assert open_data(f"{build.root},form=csv").form == "csv"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (",form=vco", "Did you mean 'voc'"),
        (",form=yolo", "does not look like YOLO"),
        (",dificult=drop", "no option 'dificult'. Did you mean 'difficult'"),
        (",difficult=maybe", "expected keep, drop, crowd"),
    ],
)
def test_options_that_are_none(build: Builder, place: str, words: str) -> None:
    voc(build)
    with pytest.raises((DataError, UsageError), match=words):
        open_data(f"{build.root}{place}")


def test_nothing_and_nothing_of_the_kind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder or file"):
        open_data(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "thesis.tex").touch()
    with pytest.raises(DataError, match=r"no data set of a form that is read here \(COCO, YOLO"):
        open_data(tmp_path / "empty")


def test_a_packed_set_is_to_be_unpacked_whatever_lies_beside_it(build: Builder) -> None:
    yolo(build)
    path = build.text("images/set.zip", "PK")
    with pytest.raises(DataError, match=r"set\.zip holds no data set .* unpack it first"):
        open_data(path)


def test_rows_of_an_image_folder(build: Builder) -> None:
    build.image("a.jpg")
    objects = '{"bbox": [[1, 2, 9, 9], [1, 2], "x"], "category": [0, 1, 2]}'
    good = f'{{"file_name": "a.jpg", "objects": {objects}}}'
    lost = '{"file_name": "z.jpg", "objects": {"bbox": [], "category": []}}'
    build.text("metadata.jsonl", f"{good}\n{lost}\n{{no\n[]\n")
    coco = open_data(build.root).splits[0].coco
    assert coco.n_boxes == 1
    assert {kind: coco.examples[kind][0].partition(":")[0] for kind in coco.problems} == {
        "not a box": "metadata.jsonl line 1 box 1",
        "image missing": "metadata.jsonl line 2",
        "row that is no JSON": "metadata.jsonl line 3",
        "row without a file name": "metadata.jsonl line 4",
    }
    assert coco.problems["not a box"] == 2
    build.text("metadata.jsonl", f"{lost}\n")
    with pytest.raises(DataError, match=r"no row is of an image .*z\.jpg"):
        open_data(build.root)


def test_bare_csv_by_columns(build: Builder) -> None:
    rows = [[c, name, *box] for name in BOXES for c, *box in BOXES[name]]
    path = build.table("boxes.csv", None, [*rows, ["", "a.jpg", "", "", "", ""]])
    for name in BOXES:
        build.image(f"photos/{name}")
    with pytest.raises(DataError, match="name them, for example ,columns="):
        open_data(path)
    data = open_data(f"{path},columns=class:file:x1:y1:x2:y2,images={build.root}/photos")
    assert contents(data) == ALL
    # columns say by themselves that a folder is CSV, and which of its files
    build.table("classes.csv", None, [["dog", 0]])
    data = open_data(f"{build.root},columns=class:file:x1:y1:x2:y2")
    assert contents(data) == ALL
    assert data.evidence == "by its option columns"
