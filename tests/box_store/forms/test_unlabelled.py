"""Images that nobody labelled: marked, left out of what is judged, and taught by teachers alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from box_store.categories import ClassSpace
from box_store.coco.rows import GUESS
from box_store.errors import DataError, UsageError
from box_store.forms.opening import annotations_of, open_data
from box_store.forms.survey import survey
from student_train.config import AugmentConfig
from student_train.data import CocoDetection, TrainTransform, make_loader
from student_train.data.mixtures import mix
from student_train.data.splits import open_split
from tests.box_store.forms.conftest import CLASSES, Builder
from tests.box_store.forms.layouts import coco_layout, yolo


def test_a_list_marks_images_of_any_form(build: Builder, tmp_path: Path) -> None:
    yolo(build)
    listed = build.text("later.txt", "c.jpg\n\nimages/val/b.jpg\nz.jpg\n")
    for place in (f"{build.root},unlabelled={listed}", f"{build.root},unlabelled=later.txt"):
        data = open_data(place)
        flags = [split.coco.table.unlabelled.tolist() for split in data.splits]
        assert flags == [[False, True], [True]]
        assert "1 names are of no image, such as z.jpg" in data.notes[-1]
    assert survey(data).splits[0].unlabelled == 1
    listed.write_text("z.jpg")
    with pytest.raises(DataError, match=r"none of which is in .*, such as z\.jpg"):
        open_data(f"{build.root},unlabelled={listed}")
    with pytest.raises(DataError, match="cannot read"):
        open_data(f"{build.root},unlabelled=nowhere.txt")


def test_images_without_objects_are_unlabelled_if_asked(build: Builder) -> None:
    yolo(build)
    (build.root / "labels/train/c.txt").write_text("")
    assert not open_data(build.root).split("train").coco.table.unlabelled.any()
    marked = open_data(f"{build.root},unlabelled=empty").split("train")
    assert marked.coco.table.unlabelled.tolist() == [False, True]


def test_an_image_without_a_label_file_is_what_the_user_says(build: Builder) -> None:
    yolo(build)
    (build.root / "labels/train/c.txt").unlink()
    (said,) = survey(open_data(build.root)).splits[0].problems
    assert "taken as without objects (,missing=unlabelled" in said
    assert not open_data(build.root).split("train").coco.table.unlabelled.any()
    marked = open_data(f"{build.root},missing=unlabelled").split("train").coco
    assert marked.table.unlabelled.tolist() == [False, True]
    assert "no label file, taken as not labelled" in marked.problems
    with pytest.raises(UsageError, match="expected empty or unlabelled"):
        open_data(f"{build.root},missing=drop")


@pytest.mark.parametrize("large", [False, True])
def test_annotations_with_scores_are_no_labels_unless_someone_says_so(
    build: Builder, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:
        # as a file beside which a table is kept
        monkeypatch.setattr("box_store.coco.annotations._CACHED_FROM_BYTES", 0)
    document = build.coco(("a.jpg", "c.jpg"))
    for name in ("a.jpg", "c.jpg"):
        build.image(f"train/{name}")
    for row in document["annotations"]:
        row["score"] = 1
    path = build.json("annotations/instances_train.json", document)
    n_boxes = open_data(build.root).splits[0].coco.n_boxes
    guessed = document["annotations"][-1]
    guessed["score"] = 0.83
    build.json("annotations/instances_train.json", document)
    words = (
        rf"1 of {n_boxes} annotations carry a score \(the first: annotation {guessed['id']}, 0.83"
    )
    for place in (path, build.root):
        with pytest.raises(DataError, match=words):
            annotations_of(place)
    for place in (f"{path},guesses=keep", f"{build.root},guesses=keep"):
        assert annotations_of(place).n_boxes == n_boxes
    dropped = open_data(f"{build.root},guesses=drop").splits[0].coco
    assert dropped.n_boxes == n_boxes - 1
    assert dropped.problems == {GUESS: 1}
    flags = dict(zip(dropped.image_ids, dropped.table.unlabelled.tolist(), strict=True))
    assert [image_id for image_id, flag in flags.items() if flag] == [guessed["image_id"]]
    with pytest.raises(UsageError, match="expected drop or keep"):
        open_data(f"{build.root},guesses=maybe")


def test_nothing_is_judged_by_images_that_nobody_labelled(build: Builder) -> None:
    document = build.coco(("a.jpg", "c.jpg"))
    document["images"][0]["labelled"] = False
    path = build.json("annotations/instances_train.json", document)
    for name in ("a.jpg", "c.jpg"):
        build.image(f"train/{name}")
    for place in (path, build.root):
        coco = annotations_of(place)
        assert [image.file_name for image in coco.images] == ["c.jpg"]
        assert len(coco.annotations_of(1)) == 3
        assert coco.n_boxes == 3
        assert len(annotations_of(place, labelled=False).images) == 2
    document["images"][1]["labelled"] = False
    build.json("annotations/instances_train.json", document)
    with pytest.raises(DataError, match="nobody labelled any of its images"):
        annotations_of(build.root)


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_a_batch_says_what_nobody_labelled(build: Builder, mosaic: float) -> None:
    coco_layout(build)
    split = open_data(f"{build.root},unlabelled=empty").split("train")
    table = split.coco.table
    flags = np.array([True, False])
    object.__setattr__(table, "unlabelled", flags)
    config = AugmentConfig(short_sides=(32,), long_side=64, crop=0.0, mosaic=mosaic)
    space = ClassSpace("contiguous", split.coco.categories)
    dataset = CocoDetection(
        split.images, split.coco, space, TrainTransform(config), augment=config, seed=1
    )
    assert (dataset.n_unlabelled, dataset.n_boxes) == (1, 3)
    assert dataset.objects_per_image.tolist() == [0, 3]
    for epoch in range(3):
        (batch,) = make_loader(dataset, 2, shuffle=False, seed=3).epoch(epoch)
        first, second = batch.truth
        assert (first.known, len(first)) == (False, 0)
        if not mosaic:
            assert (second.known, len(second) > 0) == (True, True)
            same_sizes = batch.remade(batch.images, batch.boxes)
            same_sizes.sizes[:] = torch.tensor([32, 32])
            assert [each.known for each in mix(same_sizes, 0.5).truth] == [False, False]


def test_a_split_without_annotations_has_the_classes_of_its_teachers(build: Builder) -> None:
    coco_layout(build)
    categories = open_data(build.root).splits[0].coco.categories
    for path in (build.root / "annotations").iterdir():
        path.unlink()
    photos = open_data(build.root).split("train")
    with pytest.raises(DataError, match="with --store alone"):
        open_split(photos)
    coco = open_split(photos, categories)
    assert coco.categories.names == CLASSES
    assert coco.table.unlabelled.all()
