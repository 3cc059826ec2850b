"""What is said, or refused, before a run's first step."""

import json
import shutil
from pathlib import Path

import pytest

from box_store.errors import DataError
from student_train.config import resolve
from student_train.data.splits import open_split
from student_train.machine import shared_memory
from student_train.machine.distributed import World
from student_train.presets import load_preset
from student_train.settings.origin import ARGUMENT
from student_train.settings.overrides import Layer
from student_train.training import foreseen as module
from student_train.training.foreseen import foreseen
from student_train.training.inputs import make_inputs, train_source


@pytest.fixture
def data(toy: Path, tmp_path: Path) -> Path:
    """The toy set, with names that tell the splits apart."""
    data = tmp_path / "data"
    shutil.copytree(toy, data)
    file = data / "annotations/instances_val2017.json"
    table = json.loads(file.read_text())
    for image in table["images"]:
        name = f"val_{image['file_name']}"
        (data / "val2017" / image["file_name"]).rename(data / "val2017" / name)
        image["file_name"] = name
    file.write_text(json.dumps(table))
    return data


def warnings(data: Path, **values: object) -> str:
    settings = {"data.root": str(data), "eval_every": "0", "epochs": "12", "data.workers": "0"}
    settings["optim.drop_epochs"] = "11"
    settings |= {key.replace("__", "."): str(value) for key, value in values.items()}
    config = resolve(load_preset("dino-micro"), arguments=[Layer(ARGUMENT, settings)]).config
    inputs = make_inputs(config, open_split(train_source(config)), World())
    return "\n".join(foreseen(config, inputs, config.total_steps(inputs.steps_per_epoch)))


def test_a_run_that_fits_is_silent(data: Path):
    assert warnings(data) == ""


def test_missing_images_are_counted_and_most_of_them_refused(data: Path):
    files = sorted((data / "train2017").iterdir())
    files[2].unlink()
    assert "1 of 12 images are not in" in warnings(data)
    assert "003.png" in warnings(data)
    for path in files[3:9]:
        path.unlink()
    with pytest.raises(DataError, match=r"7 of 12 images are not in .*train2017"):
        warnings(data)


def test_files_that_are_there_twice_are_counted(data: Path):
    file = data / "annotations/instances_train2017.json"
    table = json.loads(file.read_text())
    table["images"].append(table["images"][0] | {"id": 99})
    file.write_text(json.dumps(table))
    assert "1 of the training images are files that others of the list are" in warnings(data)


def test_evaluation_on_training_images_is_said(data: Path):
    shown = {"data__val_split": "train2017"}
    assert "12 of 12 evaluation images are training images" in warnings(data, **shown)


def test_missing_validation_images_are_refused_before_the_training(data: Path):
    for path in (data / "val2017").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"4 of 4 images are not in .*val2017"):
        warnings(data)


def test_images_in_folders_below_are_found(data: Path):
    file = data / "annotations/instances_train2017.json"
    table = json.loads(file.read_text())
    (data / "train2017/sub").mkdir()
    for image in table["images"][:6]:
        shutil.move(data / "train2017" / image["file_name"], data / "train2017/sub")
        image["file_name"] = f"sub/{image['file_name']}"
    file.write_text(json.dumps(table))
    assert warnings(data) == ""


def test_more_objects_than_queries(data: Path):
    assert "12 images have more objects than the student has queries (up to 2" in warnings(
        data, model__n_queries=1, model__top_k=1
    )


def test_a_schedule_that_does_not_fit(data: Path):
    assert "never drops: optim.drop_epochs=11, and the run has 2 epochs" in warnings(data, epochs=2)
    assert "drops after 11 of 100 epochs" in warnings(data, epochs=100)
    assert "some lie beyond" in warnings(data, optim__drop_epochs="11,20")
    assert "optim.warmup_steps=5000, and the run has" in warnings(data, optim__warmup_steps=5000)
    assert "eval_every=20 epochs is longer than the run of 12" in warnings(data, eval_every=20)


def test_images_of_which_little_is_left(data: Path):
    file = data / "annotations/instances_train2017.json"
    table = json.loads(file.read_text())
    table["images"][1] |= {"width": 5000, "height": 250}
    file.write_text(json.dumps(table))
    said = warnings(data, augment__eval_short_side=400, augment__eval_long_side=420)
    assert "1 of 12 images are shrunk" in said
    assert "002.png of 5000 x 250 px to 21" in said
    assert "objects are less than 4 px thin" in warnings(
        data, augment__eval_short_side=8, augment__eval_long_side=8
    )


def test_shared_memory_too_small_for_the_batches(data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "free_shared_memory", lambda: shared_memory.Room(2**16, 2**16))
    assert "--shm-size" in warnings(data, data__workers=2)
    assert warnings(data, data__workers=0) == ""
