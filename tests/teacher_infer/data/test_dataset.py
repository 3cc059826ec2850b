"""Which images a run labels, and what is said when they are not as they should be."""

import shutil

import pytest

from box_store.errors import DataError, UsageError
from teacher_infer.data.dataset import load_dataset


def test_a_split_in_cocos_layout(make_folder):
    data = make_folder(3)
    dataset = load_dataset(data, ["train"], None, None)
    assert dataset.image_ids == [1, 2, 3]
    assert dataset.tasks[0].file_name == "000001.jpg"
    assert (dataset.tasks[0].width, dataset.tasks[0].height) == (64, 48)
    assert dataset.categories.names == ("person", "car", "kite")
    assert (dataset.info.name, dataset.info.n_images) == ("train", 3)


def test_a_folder_and_a_file_anywhere_say_the_same(make_folder):
    data = make_folder(3)
    split = load_dataset(data, ["train"], None, None)
    file = data / "annotations" / "instances_train.json"
    assert load_dataset(None, [], data / "train", file) == split


def test_images_come_in_the_order_of_their_ids(make_folder, edit_annotations):
    data = make_folder(4)
    edit_annotations(data, "train", lambda document: document["images"].reverse())
    assert load_dataset(data, ["train"], None, None).image_ids == [1, 2, 3, 4]


def test_several_splits_make_one_data_set(make_folder):
    data = make_folder(2, "train")
    make_folder(2, "val", first_id=10)
    both = load_dataset(data, ["train", "val"], None, None)
    assert both.image_ids == [1, 2, 10, 11]
    assert both.tasks[2].root.endswith("val")
    assert both.info.name == "train+val"
    train = load_dataset(data, ["train"], None, None)
    assert both.info.annotations_sha256 != train.info.annotations_sha256


def test_splits_that_do_not_fit_together(make_folder, edit_annotations):
    data = make_folder(2, "train")
    make_folder(2, "val", first_id=2)
    both = load_dataset(data, ["train", "val"], None, None)
    # the image with the id 2 of one is not that of the other
    assert [task.key for task in both.tasks] == [("train", 1), ("train", 2), ("val", 2), ("val", 3)]
    assert load_dataset(data, ["train"], None, None).images_sha256 != both.images_sha256

    def rename(document):
        document["categories"][0]["name"] = "human"

    edit_annotations(data, "val", rename)
    with pytest.raises(DataError, match="other categories"):
        load_dataset(data, ["train", "val"], None, None)


def test_annotations_are_not_needed_and_bad_ones_are_counted(make_folder, edit_annotations):
    data = make_folder(2)
    edit_annotations(data, "train", lambda document: document.pop("annotations"))
    assert len(load_dataset(data, ["train"], None, None).tasks) == 2

    def spoil(document):
        boxes = ([0, 0, 0, 5], [900, 0, 5, 5])
        document["annotations"] = [
            {"id": key, "image_id": 1, "category_id": 1, "bbox": box}
            for key, box in enumerate(boxes)
        ]

    edit_annotations(data, "train", spoil)
    problems = load_dataset(data, ["train"], None, None).problems
    assert sum(problems.values()) == 2


@pytest.mark.parametrize("given", ["nothing", "half", "both"])
def test_half_a_request_is_a_usage_error(make_folder, given):
    data = make_folder(1)
    file = data / "annotations" / "instances_train.json"
    arguments = {
        "nothing": (None, [], None, None),
        "half": (None, [], data / "train", None),
        "both": (data, ["train"], data / "train", file),
    }[given]
    with pytest.raises(UsageError, match=r"--split|--images"):
        load_dataset(*arguments)


def test_missing_things_are_named(make_folder, tmp_path):
    with pytest.raises(DataError, match="no folder"):
        load_dataset(tmp_path / "nowhere", ["train"], None, None)
    data = make_folder(2, "train2017")
    with pytest.raises(DataError, match="Did you mean 'train2017'"):
        load_dataset(data, ["train2071"], None, None)
    shutil.rmtree(data / "train2017")
    with pytest.raises(DataError, match=r"no folder of images at .*train2017"):
        load_dataset(data, ["train2017"], None, None)


def test_the_wrong_folder_is_noticed_before_a_store_of_errors_is_made(make_folder, tmp_path):
    data = make_folder(3)
    (tmp_path / "empty").mkdir()
    file = data / "annotations" / "instances_train.json"
    with pytest.raises(DataError, match="none of 3 images"):
        load_dataset(None, [], tmp_path / "empty", file)
    (data / "train" / "000001.jpg").unlink()
    assert len(load_dataset(data, ["train"], None, None).tasks) == 3


def test_an_empty_data_set(make_folder):
    data = make_folder(0)
    with pytest.raises(DataError, match="data set is empty"):
        load_dataset(data, ["train"], None, None)
