"""One bad item never ends a reading: it is counted, with file and line, or refused by name."""

import json
from pathlib import Path

import pytest

from box_store.errors import DataError
from box_store.forms.opening import DataSet, open_data
from tests.box_store.forms import layouts
from tests.box_store.forms.conftest import BOXES, CLASSES, SIZE, Builder, contents


def yolo(b: Builder, rows: str, yaml: str = "", names: str = json.dumps(CLASSES)) -> None:
    b.image("images/train/a.jpg")
    b.text("labels/train/a.txt", rows)
    b.text("data.yaml", f"train: images/train\nval: images/train\nnames: {names}\n{yaml}")


def problems(data: DataSet) -> dict[str, tuple[int, str]]:
    """Of the first split: count and first example by kind."""
    coco = data.splits[0].coco
    return {kind: (count, coco.examples[kind][0]) for kind, count in coco.problems.items()}


GOOD = "1 0.5 0.5 0.5 0.5\n"


@pytest.mark.parametrize(
    ("row", "kind", "words"),
    [
        ("7 0.5 0.5 0.5 0.5", "unknown class index", "line 2: 7, there are 3 classes"),
        ("-1 0.5 0.5 0.5 0.5", "class is no index", "line 2: -1"),
        ("1 0.5 0.5 0.5", "row too short", "line 2: 4 numbers"),
        ("dog 0.5 0.5 0.5 0.5", "row with text", "line 2: 'dog"),
        ("1 nan 0.5 0.5 0.5", "not in 0..1 (pixels?)", "line 2"),
        ("1 40 30 20 10", "not in 0..1 (pixels?)", "line 2: 1 40 30 20 10"),
        ("1 0.5 0.5 0.5 0.5 0.9", "row of a length that is neither box nor outline", "a score"),
        ("1 0.5 0.5 0 0.5", "no area", "labels/train/a.txt line 2"),
        ("1 0.95 0.5 0.5 0.5", "cut to its image", "labels/train/a.txt line 2"),
    ],
)
def test_rows_of_yolo(build: Builder, row: str, kind: str, words: str) -> None:
    yolo(build, GOOD + row + "\n\n" + GOOD)
    data = open_data(build.root)
    found = problems(data)
    assert set(found) == {kind}
    assert found[kind][0] == 1
    assert words in found[kind][1]
    assert data.splits[0].coco.n_boxes == (3 if kind == "cut to its image" else 2)


def test_images_of_yolo_without_labels_and_labels_that_are_no_text(build: Builder) -> None:
    yolo(build, GOOD)
    build.image("images/train/empty.jpg")
    build.text("labels/train/empty.txt", "")
    build.image("images/train/none.jpg")
    build.image("images/train/bytes.jpg")
    (build.root / "labels/train/bytes.txt").write_bytes(b"\xff\xfe\xfa")
    (build.root / "images/train/torn.jpg").write_bytes(b"no image")
    data = open_data(build.root)
    coco = data.splits[0].coco
    assert [image.file_name for image in coco.images] == ["a.jpg", "empty.jpg", "none.jpg"]
    found = problems(data)
    kind = "no label file, taken as without objects (,missing=unlabelled if nobody has looked)"
    assert found[kind] == (1, "images/train/none.jpg")
    assert found["label file not readable"][1].startswith("labels/train/bytes.txt")
    assert "torn.jpg" in found["image not readable"][1]


def test_nothing_is_left_out_without_a_word(build: Builder) -> None:
    """Files that describe a split and are empty, labels without images, images without labels."""
    coco_folders, yolo_root, labelme_root, voc_root = (
        Builder(build.root / name) for name in ("coco", "yolo", "labelme", "voc")
    )
    layouts.roboflow(coco_folders)
    coco_folders.text("train/_annotations.coco.json", "")
    assert open_data(coco_folders.root).notes == ("train/_annotations.coco.json is empty",)
    coco_folders.root.joinpath("train/_annotations.coco.json").write_bytes(b"caf\xe9 au lait")
    assert open_data(coco_folders.root).notes == ("train/_annotations.coco.json is no text",)

    layouts.yolo(yolo_root)
    yolo_root.image("images/train/a.png")
    yolo_root.text("labels/val/lost.txt", GOOD)
    yolo_root.text("labels/val/classes.txt", "car\ndog\n")
    assert open_data(yolo_root.root).notes == (
        "1 pairs of images share a label file, such as images/train/a.jpg and a.png",
        "1 label files are of no image that is there, such as labels/val/lost.txt",
    )

    layouts.labelme(labelme_root)
    labelme_root.image("train/new.jpg")
    layouts.voc_renamed(voc_root)
    voc_root.image("val/new.jpg")
    for root, name in ((labelme_root, "train/new.jpg"), (voc_root, "val/new.jpg")):
        said = f"1 images have no annotation file and are left out, such as {name}"
        assert said in open_data(root.root).notes


def test_a_set_whose_label_files_are_nowhere_is_refused(build: Builder) -> None:
    layouts.yolo(build)
    (build.root / "labels").rename(build.root / "txt")
    words = r"none of 3 images has a label file \(the first looked for: labels/train/a.txt\)"
    with pytest.raises(DataError, match=words):
        open_data(build.root)
    assert open_data(f"{build.root},missing=empty").splits[0].coco.n_boxes == 0
    flags = open_data(f"{build.root},missing=unlabelled").splits[0].coco.table.unlabelled
    assert flags.all()
    (build.root / "txt").rename(build.root / "Labels")
    assert open_data(build.root).splits[0].coco.n_boxes == 5


def test_key_points_that_nothing_announces_are_no_outline(build: Builder) -> None:
    yolo(build, "1 0.5 0.5 0.5 0.5 0.3 0.3 2 0.6 0.6 1\n" + GOOD, "nc: 7\n")
    data = open_data(build.root)
    boxes = data.splits[0].coco.table.boxes_xywh
    assert boxes[0].tolist() == boxes[1].tolist()
    assert "1 rows have key points behind the box: boxes alone are taken" in data.notes
    assert "the configuration says 7 classes, and names 3" in data.notes


TILTED = "1 0.5 0.2 0.8 0.5 0.5 0.8 0.2 0.5"


@pytest.mark.parametrize("rows", [f"{TILTED}\n", f"{GOOD}{TILTED}\n"])
def test_oriented_boxes_are_refused_by_name(build: Builder, rows: str) -> None:
    yolo(build, rows)
    # in pixels of 60 x 60 the four corners are a square on its tip
    build.image("images/train/a.jpg", (60, 60))
    with pytest.raises(DataError, match=r"oriented boxes: 1 rows .*a\.txt line .*oriented=hull"):
        open_data(build.root)
    data = open_data(f"{build.root},oriented=hull")
    x, y, w, h = data.splits[0].coco.table.boxes_xywh[-1].tolist()
    assert (x, y, w, h) == pytest.approx((12, 12, 36, 36), abs=1e-4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: [unclosed", "not valid YAML"),
        ("- train\n- names", "expected a table"),
        ("train: images/train\nnames: 5", "names should be a list or a table"),
        ("train: images/train\nnames: {x: cat}", "names must be numbered from 0"),
        ("train: !!python/object/apply:os.system [id]\nnames: [cat]", "not valid YAML"),
    ],
)
def test_configurations_of_yolo(build: Builder, text: str, words: str) -> None:
    yolo(build, GOOD)
    path = build.text("data.yaml", text)
    with pytest.raises(DataError, match=words):
        open_data(path)


def test_lists_name_what_is_missing_and_never_leave_the_folder(build: Builder) -> None:
    yolo(build, GOOD)
    (build.root.parent / "secret.jpg").write_bytes(build.image("tmp.jpg").read_bytes())
    (build.root / "tmp.jpg").unlink()
    build.text("train.txt", "images/train/a.jpg\n../secret.jpg\n/etc/passwd\nimages/train/b.jpg\n")
    build.text("data.yaml", f"train: train.txt\nnames: {json.dumps(CLASSES)}")
    data = open_data(build.root)
    assert [image.file_name for image in data.splits[0].coco.images] == ["a.jpg"]
    count, example = problems(data)["image missing"]
    assert count == 3
    assert example.startswith("train.txt line 2: no image '../secret.jpg'")


def test_links_that_leave_the_folder_are_not_followed(build: Builder) -> None:
    yolo(build, GOOD)
    outside = Builder(build.root.parent / "elsewhere").image("b.jpg")
    (build.root / "images/train/b.jpg").symlink_to(outside)
    data = open_data(build.root)
    assert len(data.splits[0].coco.images) == 1
    assert (
        "1 links that leave the folder are not followed, such as images/train/b.jpg" in data.notes
    )


def voc(b: Builder, xml: str | None, name: str = "a.jpg") -> None:
    for each in ("a.jpg", "b.jpg"):
        b.image(f"JPEGImages/{each}")
        b.text(f"Annotations/{each[:-4]}.xml", b.voc_xml(each))
    if xml is not None:
        b.text(f"Annotations/{name[:-4]}.xml", xml)


def voc_object(inside: str) -> str:
    return (
        f"<annotation><size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>"
        f"<object>{inside}</object></annotation>"
    )


def corners(*values: object) -> str:
    keys = ("xmin", "ymin", "xmax", "ymax")
    return "".join(f"<{k}>{v}</{k}>" for k, v in zip(keys, values, strict=True))


@pytest.mark.parametrize(
    ("xml", "kind"),
    [
        ("<annotation><object>", "annotation file not readable"),
        ("", "annotation file not readable"),
        (voc_object("<name>dog</name>"), "not a box"),
        (voc_object(f"<name>dog</name><bndbox>{corners(1, 2, 'x', 4)}</bndbox>"), "not a box"),
        (voc_object(f"<bndbox>{corners(1, 2, 3, 4)}</bndbox>"), "object without a class"),
        (voc_object("<name>dog</name><robndbox><cx>3</cx></robndbox>"), "oriented box"),
        (voc_object(f"<name>dog</name><bndbox>{corners(9, 9, 9, 9)}</bndbox>"), "no area"),
        (voc_object(f"<name>dog</name><bndbox>{corners(99, 9, 109, 9)}</bndbox>"), "no area"),
    ],
)  # fmt: skip
def test_files_of_voc(build: Builder, xml: str, kind: str) -> None:
    voc(build, xml)
    data = open_data(build.root)
    found = problems(data)
    assert set(found) == {kind}
    assert found[kind][0] == 1
    assert "Annotations/a.xml" in found[kind][1]
    assert "b.jpg" in contents(data)["all"]


def test_voc_lists_what_is_missing(build: Builder) -> None:
    voc(build, None)
    build.text("ImageSets/Main/train.txt", "a\nghost\n")
    build.text("Annotations/lost.xml", build.voc_xml("a.jpg", filename="lost.jpg"))
    build.text("ImageSets/Main/val.txt", "b\nlost\n")
    data = open_data(build.root)
    assert problems(data)["no annotation file"][1].startswith(
        "ImageSets/Main/train.txt line 2: no annotation file of 'ghost'"
    )
    val = data.split("val").coco
    assert list(val.examples["image missing"]) == [
        "Annotations/lost.xml: no image 'lost' (nor 'lost.jpg')"
    ]


def test_voc_corners_from_0_are_seen(build: Builder) -> None:
    voc(build, None)
    for name in ("a.jpg", "b.jpg"):
        build.text(f"Annotations/{name[:-4]}.xml", build.voc_xml(name, first=0))
    data = open_data(build.root)
    assert contents(data)["all"] == {name: BOXES[name] for name in ("a.jpg", "b.jpg")}
    assert "corners are counted from 0" in data.notes[0]
    shifted = open_data(f"{build.root},corners=1").splits[0].coco
    assert shifted.problems == {"cut to its image": 1}


@pytest.mark.parametrize(("option", "counts"), [("keep", 1), ("drop", 0), ("crowd", 1)])
def test_difficult_objects(build: Builder, option: str, counts: int) -> None:
    voc(build, None)
    coco = open_data(f"{build.root},difficult={option}").splits[0].coco
    rows = coco.annotations_of(2)
    assert len(rows) == counts
    assert rows.iscrowd.tolist() == [option == "crowd"] * counts


def test_two_images_of_one_stem(build: Builder) -> None:
    build.image("JPEGImages/a.jpg")
    build.image("JPEGImages/a.png")
    build.image("JPEGImages/b.jpg")
    for name in ("a.jpg", "b.jpg"):
        build.text(f"Annotations/{name[:-4]}.xml", build.voc_xml(name, filename=name[:-4]))
    data = open_data(build.root)
    assert list(contents(data)["all"]) == ["b.jpg"]
    assert "2 images could be 'a'" in problems(data)["image missing"][1]


def test_rows_of_csv(build: Builder) -> None:
    header = ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]
    rows = [
        ["a.jpg", *SIZE, "dog", 5, 5, 20, 20],
        ["a.jpg", *SIZE, "dog", 5, "x", 20, 20],
        ["a.jpg", *SIZE, "", 5, 5, 20, 20],
        ["ghost.jpg", *SIZE, "dog", 5, 5, 20, 20],
        ["", *SIZE, "dog", 5, 5, 20, 20],
        ["a.jpg", *SIZE],
        ["a.jpg", *SIZE, "dog", 20, 5, 5, 20],
    ]
    path = build.table("boxes.csv", header, rows)
    build.image("a.jpg")
    found = problems(open_data(path))
    assert {kind: count for kind, (count, _) in found.items()} == {
        "not a box": 1,
        "object without a class": 1,
        "image missing": 1,
        "row without a file name": 1,
        "no area": 1,
    }
    assert "boxes.csv line 5: no image 'ghost.jpg'" in found["image missing"][1]


def test_csv_of_absent_images_is_refused_with_the_first(build: Builder) -> None:
    header = ["filename", "class", "xmin", "ymin", "xmax", "ymax"]
    path = build.table("boxes.csv", header, [["ghost.jpg", "dog", 5, 5, 20, 20]])
    build.image("a.jpg")
    with pytest.raises(DataError, match=r"no row is of an image that is there .*ghost\.jpg"):
        open_data(path)


def test_shapes_of_labelme(build: Builder) -> None:
    shapes = [
        {"label": "dog", "shape_type": "circle", "points": [[30, 30], [40, 30]]},
        {"label": "dog", "shape_type": "line", "points": [[1, 1], [5, 5]]},
        {"label": "dog", "shape_type": "rotation", "points": [[1, 1], [5, 5], [3, 9], [0, 4]]},
        {"label": None, "points": [[1, 1], [5, 5]]},
        {"label": "dog", "points": "none"},
        "no shape",
    ]
    build.image("a.jpg")
    document = {"imagePath": "a.jpg", "imageWidth": SIZE[0], "imageHeight": SIZE[1]}
    build.json("a.json", {"shapes": shapes} | document)
    build.json("ghost.json", {"shapes": [], "imagePath": "ghost.jpg", "imageData": "abc"})
    build.text("torn.json", '{"version": "5", "shapes": [')
    data = open_data(build.root)
    assert contents(data)["all"] == {"a.jpg": [("dog", 20, 20, 40, 40)]}
    found = problems(data)
    assert {kind: count for kind, (count, _) in found.items()} == {
        "shape that is no box": 1,
        "oriented box": 1,
        "object without a class": 1,
        "not a box": 2,
        "image missing": 1,
        "annotation file not readable": 1,
    }
    assert "inside the JSON alone" in found["image missing"][1]


def test_crowdhuman_regions_to_ignore_are_crowds(build: Builder) -> None:
    build.image("Images/a.jpg")
    boxes = [
        {"tag": "person", "fbox": [5, 5, 20, 20]},
        {"tag": "mask", "fbox": [40, 5, 20, 20]},
        {"tag": "person", "fbox": [5, 30, 20, 20], "extra": {"ignore": 1}},
        {"tag": "person", "fbox": None},
    ]
    lines = [
        json.dumps({"ID": "a", "gtboxes": boxes}),
        "{",
        json.dumps({"ID": "ghost", "gtboxes": []}),
    ]
    build.text("annotation_train.odgt", "\n".join(lines))
    data = open_data(build.root)
    coco = data.splits[0].coco
    assert coco.table.iscrowd.tolist() == [False, True, True]
    found = problems(data)
    assert found["row not readable"][1].startswith("annotation_train.odgt line 2")
    assert found["image missing"][1].startswith("annotation_train.odgt line 3")
    assert found["not a box"][0] == 1


def test_names_of_coco_that_are_nowhere_stay_missing(build: Builder) -> None:
    document = build.coco(("a.jpg", "b.jpg"))
    build.json("annotations/instances_train.json", document)
    build.image("train/a.jpg")
    split = open_data(build.root).split("train")
    assert split.images == build.root / "train"
    assert [image.file_name for image in split.coco.images] == ["a.jpg", "b.jpg"]


def test_a_name_that_two_images_have_is_not_guessed(build: Builder) -> None:
    build.json("annotations/instances_train.json", build.coco(("a.jpg",), prefix="/home/bob/"))
    build.image("one/a.jpg")
    build.image("two/a.jpg")
    split = open_data(build.root).split("train")
    assert not (Path(str(split.images)) / split.coco.images[0].file_name).is_file()


def test_files_that_only_look_like_annotations(build: Builder) -> None:
    yolo(build, GOOD)
    (build.root / "data.yaml").unlink()
    build.text("classes.txt", "\n".join(CLASSES))
    # Label Studio's list of classes beside its YOLO export
    build.json("notes.json", {"categories": [{"id": 0, "name": "car"}], "info": {}})
    assert open_data(build.root).form == "yolo"


def test_photos_beside_files_of_no_known_form_say_so(build: Builder) -> None:
    build.image("images/a.jpg")
    build.text("annotations.xml", "<dataset><images/></dataset>")
    data = open_data(build.root)
    assert data.form == "photos"
    assert "1 other files are of no form that is read, such as annotations.xml" in data.notes[0]


def test_outlines_of_old_labelme_are_boxes(build: Builder) -> None:
    build.image("a.jpg")
    points = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((5, 6), (30, 6), (30, 40)))
    build.text("a.xml", voc_object(f"<name>dog</name><polygon>{points}</polygon>"))
    assert contents(open_data(build.root))["all"] == {"a.jpg": [("dog", 5, 6, 30, 40)]}


def test_corners_that_are_all_shifted_by_one_are_seen(build: Builder) -> None:
    voc(build, None)
    for name in ("a.jpg", "b.jpg"):
        text = build.voc_xml(name)
        for key in ("xmax", "ymax"):
            head, *rest = text.split(f"<{key}>")
            ends = [part.partition("<") for part in rest]
            text = head + "".join(f"<{key}>{int(n) + 1}<{tail}" for n, _, tail in ends)
        build.text(f"Annotations/{name[:-4]}.xml", text)
    data = open_data(build.root)
    assert contents(data)["all"] == {name: BOXES[name] for name in ("a.jpg", "b.jpg")}
    assert "shifted by one" in data.notes[0]


def test_splits_of_yolo_may_have_a_year(build: Builder) -> None:
    yolo(build, GOOD)
    build.text("data.yaml", "train2017: images/train\nnames: [a, b]\ntrain: null\n")
    assert [split.name for split in open_data(build.root / "data.yaml").splits] == ["train2017"]
