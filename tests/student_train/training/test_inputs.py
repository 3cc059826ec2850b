"""From a configuration to data: missing and unfitting things are named."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from box_store.boxes import Boxes
from box_store.categories import Categories, Category
from box_store.coco.annotations import load_coco
from box_store.errors import DataError, StoreError, UnknownTeacher, UsageError
from box_store.selection.selecting import SelectionSpec, select
from box_store.store.records import DatasetInfo, ImageRow, TeacherRecord, image_ids_sha256
from box_store.store.store import BoxStore
from student_train.config import TrainConfig
from student_train.data.splits import open_split
from student_train.errors import ConfigError
from student_train.machine.distributed import World
from student_train.presets import load_preset
from student_train.settings.origin import ARGUMENT
from student_train.settings.overrides import Layer, merge
from student_train.training.inputs import Inputs, make_inputs, train_source

from ..conftest import write_annotations, write_split


def configured(root: Path, **values: object) -> TrainConfig:
    settings = {key.replace("__", "."): value for key, value in values.items()}
    settings["data.root"] = root
    return merge(load_preset("dino-micro"), [Layer(ARGUMENT, settings)]).config


def inputs_of(root: Path, **values: object) -> Inputs:
    config = configured(root, **values)
    return make_inputs(config, open_split(train_source(config)), World())


def test_both_splits_are_found(toy: Path):
    inputs = inputs_of(toy)
    assert (len(inputs.train), inputs.steps_per_epoch) == (12, 3)
    assert inputs.validation is not None
    assert len(inputs.validation.dataset) == 4
    assert inputs.class_space.n_classes == 3


def test_explicit_paths_replace_the_layout(toy: Path, tmp_path: Path):
    inputs = inputs_of(
        tmp_path,
        data__train_images=toy / "train2017",
        data__train_annotations=toy / "annotations/instances_train2017.json",
        data__val_split="none",
    )
    assert len(inputs.train) == 12
    assert inputs.validation is None


def test_data_can_be_limited(toy: Path):
    inputs = inputs_of(toy, data__limit=5, data__val_limit=2)
    assert (len(inputs.train), inputs.steps_per_epoch) == (5, 2)
    assert inputs.validation is not None
    assert len(inputs.validation.dataset) == 2


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"data__root": "nowhere"}, "no folder or file nowhere"),
        ({"data__train_split": "train2071"}, r"no split 'train2071'.*Did you mean 'train2017'"),
        ({"data__val_split": "val"}, r"no split 'val'.*Did you mean 'val2017'"),
        (
            {"data__train_annotations": "ann.json"},
            r"no annotations at ann\.json",
        ),
    ],
)
def test_missing_folders_are_named_with_the_nearest(toy: Path, values: dict, words: str):
    config = merge(
        configured(toy), [Layer(ARGUMENT, {k.replace("__", "."): v for k, v in values.items()})]
    ).config
    with pytest.raises(DataError, match=words):
        make_inputs(config, open_split(train_source(config)), World())


def test_no_data_at_all_is_a_usage_error():
    with pytest.raises(ConfigError, match="give --data DIR"):
        train_source(load_preset("dino-micro"))


def test_an_empty_data_set_is_refused(tmp_path: Path):
    write_split(tmp_path, "train2017", 1, seed=0)
    write_annotations(tmp_path, "train2017", [], [])
    with pytest.raises(DataError, match="lists no images: the data set is empty"):
        inputs_of(tmp_path)


def test_data_without_annotations_trains_with_a_note(tmp_path: Path):
    write_split(tmp_path, "train2017", 2, seed=0)
    images = json.loads((tmp_path / "annotations/instances_train2017.json").read_text())["images"]
    write_annotations(tmp_path, "train2017", images, [])
    notes = inputs_of(tmp_path, data__val_split="train2017").notes
    assert any("has no boxes" in note for note in notes)


def test_splits_of_other_categories_are_refused(toy: Path, tmp_path: Path):
    write_split(tmp_path, "val2017", 1, seed=0)
    path = tmp_path / "annotations/instances_val2017.json"
    table = json.loads(path.read_text())
    table["categories"][1]["name"] = "grass"
    path.write_text(json.dumps(table))
    with pytest.raises(DataError, match="5: 'green' here, 'grass' there"):
        inputs_of(toy, data__val_images=tmp_path / "val2017", data__val_annotations=path)


def test_a_batch_must_be_divisible(toy: Path):
    config = configured(toy)
    with pytest.raises(ConfigError, match="batch_size 4 cannot be divided among 3 processes"):
        make_inputs(config, open_split(train_source(config)), World(rank=0, size=3))


def test_teachers_of_a_store_are_joined_and_counted(toy: Path, store: Path):
    inputs = inputs_of(toy, teachers__store=store)
    assert set(inputs.train.teachers) == {"late", "sharp"}
    assert "teacher sharp: 24 boxes in 12 of 12 training images" in inputs.notes


def test_gaps_of_the_teachers_are_remarked(toy: Path, store: Path):
    notes = inputs_of(toy, teachers__store=store, teachers__names="late").notes
    assert any(
        "no teacher has a box for 50.0 % of the training images (6 of 12)" in n for n in notes
    )
    assert not any("no teacher has a box of" in n for n in notes)
    high = inputs_of(toy, teachers__store=store, teachers__score_floor=0.99).notes
    assert any("no teacher has a box of 3 of 3 classes (red, green, blue)" in n for n in high)


def test_teachers_can_be_chosen_and_filtered(toy: Path, store: Path):
    inputs = inputs_of(
        toy, teachers__store=store, teachers__names="sharp", teachers__each__sharp__score_floor=0.8
    )
    assert inputs.train.teachers == ("sharp",)
    assert "teacher sharp: 12 boxes in 12 of 12 training images" in inputs.notes


def test_a_licence_can_be_denied(toy: Path, store: Path):
    inputs = inputs_of(toy, teachers__store=store, teachers__deny_licences="AGPL*")
    assert inputs.train.teachers == ("sharp",)


def test_no_teachers_do_not_even_need_the_store_to_exist(toy: Path):
    inputs = inputs_of(toy, teachers__store="nowhere", teachers__names="none")
    assert inputs.train.teachers == ()


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ({"teachers__store": "nowhere"}, StoreError, "no box store at .*nowhere"),
        ({"teachers__boxes": "nowhere"}, StoreError, "no selection at .*nowhere"),
        ({"teachers__names": "shrap"}, UnknownTeacher, "Did you mean 'sharp'"),
        ({"teachers__score_floor": 2}, UsageError, r"score_floor lies in 0\.\.1"),
    ],
)
def test_teachers_that_are_not_there_are_named(
    toy: Path, store: Path, values: dict, error: type, words: str
):
    if not {"teachers__store", "teachers__boxes"} & set(values):
        values = {**values, "teachers__store": store}
    with pytest.raises(error, match=words):
        inputs_of(toy, **values)


def test_a_selection_file_replaces_the_store(toy: Path, store: Path, tmp_path: Path):
    path = select(BoxStore.open(store), SelectionSpec(), tmp_path)
    assert set(inputs_of(toy, teachers__boxes=path).train.teachers) == {"late", "sharp"}
    one = inputs_of(toy, teachers__boxes=path, teachers__names="late")
    assert one.train.teachers == ("late",)
    with pytest.raises(UnknownTeacher, match="Did you mean 'late'"):
        inputs_of(toy, teachers__boxes=path, teachers__names="latte")


def other_store(path: Path, categories: Categories, first_image: int) -> Path:
    store = BoxStore.create(path, categories, DatasetInfo("other", "0" * 64, 1))
    record = TeacherRecord(
        name="other",
        adapter="onnx",
        model="toy",
        weights_sha256="a" * 64,
        licence="MIT",
        class_map={},
        options={},
        image_ids_sha256=image_ids_sha256([first_image]),
        unit_size=1,
        n_images=1,
        n_units=1,
    )
    store.register(record)
    store.write_unit("other", 0, [ImageRow(first_image, "x.png", 80, 64, Boxes.empty(80, 64))])
    return path


def test_a_store_of_other_categories_is_refused(toy: Path, tmp_path: Path):
    path = other_store(tmp_path / "store", Categories((Category(2, "cat"),)), 1)
    with pytest.raises(DataError, match="2: 'red' here, 'cat' there"):
        inputs_of(toy, teachers__store=path)


def test_a_teacher_that_saw_other_images_is_refused(toy: Path, tmp_path: Path):
    categories = load_coco(toy / "annotations/instances_train2017.json").categories
    path = other_store(tmp_path / "store", categories, 999)
    with pytest.raises(DataError, match="teacher other saw none of the 12 training images"):
        inputs_of(toy, teachers__store=path)


def test_processes_share_an_epoch(toy: Path):
    config = configured(toy)
    coco = open_split(train_source(config))
    seen = []
    for rank in (0, 1):
        inputs = make_inputs(config, coco, replace(World(), rank=rank, size=2))
        assert inputs.steps_per_epoch == 3
        seen += [i for batch in inputs.train_batches(0, 0) for i in batch.image_ids]
    assert sorted(seen) == list(range(1, 13))


def test_images_that_a_teacher_missed_can_be_an_error(toy: Path, store: Path):
    assert inputs_of(toy, teachers__store=store, teachers__missing="skip")
    with pytest.raises(DataError, match=r"late never saw 6 of the 12 .*image 7 first"):
        inputs_of(toy, teachers__store=store, teachers__missing="error")
    named = {"teachers__store": store, "teachers__names": "sharp"}
    assert inputs_of(toy, teachers__missing="error", **named)
