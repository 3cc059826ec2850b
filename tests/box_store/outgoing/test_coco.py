"""Any form written as COCO: the same images, boxes and ids, and the same batches to train on."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from box_store.categories import ClassSpace
from box_store.errors import UsageError
from box_store.forms import kept
from box_store.forms.opening import DataSet, open_data
from box_store.forms.survey import survey
from box_store.outgoing.coco import stratified, write_coco
from student_train.config import AugmentConfig
from student_train.data import Batch, CocoDetection, TrainTransform, make_loader
from tests.box_store.forms.conftest import Builder, contents
from tests.box_store.forms.layouts import WRITERS, coco_layout, roboflow, voc, yolo


def batches(data: DataSet, split: str) -> list[Batch]:
    found = data.split(split)
    transform = TrainTransform(AugmentConfig(short_sides=(32, 40), long_side=64, crop=0.0))
    space = ClassSpace("contiguous", found.coco.categories)
    dataset = CocoDetection(found.images, found.coco, space, transform, seed=3)
    return list(make_loader(dataset, 2, shuffle=True, seed=3).epoch(1))


@pytest.mark.parametrize("name", [*WRITERS])
def test_training_in_place_and_on_what_was_written_is_the_same(
    build: Builder, tmp_path: Path, name: str
) -> None:
    WRITERS[name][1](build)
    data = open_data(build.root)
    written = write_coco(data, tmp_path / "out")
    again = open_data(tmp_path / "out")
    assert contents(again) == contents(data)
    assert sum(row.boxes for row in written) == 6
    first = data.splits[0].name
    for one, other in zip(batches(data, first), batches(again, first), strict=True):
        assert one.image_ids == other.image_ids
        assert (one.images == other.images).all()
        assert (one.boxes.rows == other.boxes.rows).all()


def test_ids_that_collide_are_numbered_on(build: Builder, tmp_path: Path) -> None:
    roboflow(build)
    write_coco(open_data(build.root), tmp_path / "out")
    again = open_data(tmp_path / "out")
    ids = [list(split.coco.image_ids) for split in again.splits]
    assert ids == [[0, 1], [2]]
    assert '"source_id": 0' in (tmp_path / "out/annotations/instances_valid.json").read_text()


def test_boxes_at_the_border_come_back_bit_for_bit(build: Builder, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        f"0 {x} {y} {2 * (1 - x)} {2 * (1 - y)}"
        for x, y in rng.uniform(0.6, 0.99, (200, 2)).tolist()
    ]
    build.image("images/a.jpg", (641, 479))
    build.text("labels/a.txt", "\n".join(rows))
    build.text("classes.txt", "cat")
    data = open_data(build.root)
    write_coco(data, tmp_path / "out")
    before, after = (each.splits[0].coco for each in (data, open_data(tmp_path / "out")))
    assert (before.table.boxes_xywh == after.table.boxes_xywh).all()
    assert not after.problems


def test_a_validation_split_has_its_share_of_every_class(build: Builder, tmp_path: Path) -> None:
    for at in range(40):
        build.image(f"images/{at:02d}.jpg")
        kinds = [0, *([1] if at % 4 == 0 else []), *([2] if at % 10 == 0 else [])]
        build.text(f"labels/{at:02d}.txt", "\n".join(f"{k} 0.5 0.5 0.2 0.2" for k in kinds))
    build.text("classes.txt", "common\nsometimes\nrare")
    data = open_data(build.root)
    chosen = stratified(data.splits[0].coco, 0.25, 0)
    assert chosen.sum() == 10
    assert chosen[[0, 10, 20, 30]].sum() == 1
    assert 2 <= chosen[::4].sum() <= 3
    assert (stratified(data.splits[0].coco, 0.25, 0) == chosen).all()
    assert (stratified(data.splits[0].coco, 0.25, 1) != chosen).any()
    write_coco(data, tmp_path / "out", val=0.25)
    again = open_data(tmp_path / "out")
    assert [(split.name, len(split.coco.images)) for split in again.splits] == [
        ("train", 30),
        ("val", 10),
    ]
    with pytest.raises(UsageError, match="already"):
        write_coco(again, tmp_path / "other", val=0.5)


def test_nothing_is_written_into_the_data_set_or_over_anything(
    build: Builder, tmp_path: Path
) -> None:
    voc(build)
    data = open_data(build.root)
    with pytest.raises(UsageError, match="lies in the data set"):
        write_coco(data, build.root / "coco")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(UsageError, match="is not empty"):
        write_coco(data, tmp_path / "out")


def test_missing_images_are_left_out_and_counted(build: Builder, tmp_path: Path) -> None:
    coco_layout(build)
    (build.root / "train/a.jpg").unlink()
    train, val = write_coco(open_data(build.root), tmp_path / "out")
    assert (train.images, train.missing, val.missing) == (1, 1, 0)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_WORTH_FILES", 0)
    monkeypatch.setattr(kept, "_SETTLED_NS", 0)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("write", [yolo, voc])
def test_an_index_serves_until_a_file_changes(
    build: Builder, monkeypatch: pytest.MonkeyPatch, write
) -> None:
    write(build)
    first = open_data(build.root)
    expected = contents(first)

    def never(*args: object) -> None:
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr("box_store.forms.opening._read", never)
        second = open_data(build.root)
        assert contents(second) == expected
        assert second.summary == first.summary
        assert second.splits[0].coco.table.path is not None
        assert [s.coco.sha256 for s in second.splits] == [s.coco.sha256 for s in first.splits]
    labels = sorted(path for path in build.root.rglob("*") if path.suffix in (".xml", ".txt"))
    labels = [path for path in labels if "ImageSets" not in path.parts]
    labels[0].write_text(labels[0].read_text() + "\n")
    with monkeypatch.context() as patch:
        patch.setattr("box_store.forms.opening._read", never)
        with pytest.raises(AssertionError, match="read again"):
            open_data(build.root)
    open_data(build.root)
    shutil.copy(build.image("tmp.jpg"), next(build.root.rglob("c.jpg")).with_name("d.jpg"))
    with monkeypatch.context() as patch:
        patch.setattr("box_store.forms.opening._read", never)
        with pytest.raises(AssertionError, match="read again"):
            open_data(build.root)


def test_a_survey_finds_what_is_probably_wrong(build: Builder) -> None:
    coco_layout(build)
    shutil.copy(build.root / "train/a.jpg", build.root / "val/b.jpg")
    (build.root / "train/c.jpg").unlink()
    found = survey(open_data(build.root))
    train, val = found.splits
    assert (train.images, train.present, train.missing, val.present) == (2, 1, 1, 1)
    assert train.classes == {"car": 2, "dog": 3, "person": 0}
    assert found.duplicates == 1
    text = "\n".join(found.warnings)
    assert "1 images are in two splits under different names" in text
    assert "train: 1 of 2 images are missing" in text
    assert "no box of 1 of 3 classes (person)" in text
    assert found.to_json()["splits"][0]["objects_per_image"]["100%"] == 3


def test_a_survey_recognises_boxes_in_the_frame_of_exif(build: Builder) -> None:
    from PIL import Image

    build.json("annotations/instances_train.json", build.coco(("a.jpg",)))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = build.image("train/a.jpg")
    Image.new("RGB", (60, 80)).save(path, exif=exif)
    assert "EXIF orientation that turns them" in survey(open_data(build.root)).warnings[0]
