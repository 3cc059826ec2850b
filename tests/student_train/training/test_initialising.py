"""Weights to fine-tune from: what fits, and what belongs to classes of other names."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from box_store.categories import Categories, Category, ClassSpace
from student_train.config import TrainConfig, as_plain
from student_train.export.official import export_checkpoint
from student_train.models import Student, build_student
from student_train.presets import load_preset
from student_train.runs.checkpoint import save_weights
from student_train.runs.importing import import_checkpoint
from student_train.runs.run_folder import class_space_to_plain
from student_train.runs.trained import TrainedStudent
from student_train.training.initialising import initialise

HEAD = "heads.classes.0.weight"
LABELS = "denoising.label_embedding.weight"


def space_of(*names: str) -> ClassSpace:
    return ClassSpace(
        "contiguous", Categories(tuple(Category(i, n) for i, n in enumerate(names, 1)))
    )


def student_of(n_classes: int, seed: int) -> tuple[Student, TrainConfig]:
    torch.manual_seed(seed)
    config = load_preset("dino-micro")
    config = replace(config, model=replace(config.model, n_classes=n_classes))
    return build_student(config.model), config


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """Weights of a student of car, bus, truck."""
    model, config = student_of(3, 0)
    about = {
        "config": as_plain(config),
        "classes": class_space_to_plain(space_of("car", "bus", "truck")),
    }
    save_weights(tmp_path / "three.safetensors", model.state_dict(), about)
    return tmp_path / "three.safetensors", model.state_dict()


def test_the_same_classes_in_another_order_keep_their_rows(saved):
    path, before = saved
    model, _ = student_of(3, 1)
    report = initialise(model, path, space_of("truck", "car", "bus"))
    after = model.state_dict()
    for name in (HEAD, LABELS, "queries.classes.bias"):
        assert torch.equal(after[name][:3], before[name][[2, 0, 1]]), name
    assert torch.equal(after[LABELS][3], before[LABELS][3])
    assert "class head: 3 of 3 classes by name" in report.describe()


def test_as_many_other_classes_begin_anew(saved):
    path, before = saved
    model, _ = student_of(3, 1)
    initial = {key: value.clone() for key, value in model.state_dict().items()}
    report = initialise(model, path, space_of("polyp", "bus", "bleeding"))
    head = model.state_dict()[HEAD]
    assert torch.equal(head[1], before[HEAD][1])
    assert torch.equal(head[[0, 2]], initial[HEAD][[0, 2]])
    assert "1 of 3 classes by name, the rest anew (polyp, bleeding)" in report.describe()
    # what knows no classes is taken as ever
    assert torch.equal(
        model.state_dict()["encoder.layers.0.norm1.weight"], before["encoder.layers.0.norm1.weight"]
    )


def test_another_number_of_classes_keeps_those_of_known_names(saved):
    path, before = saved
    model, _ = student_of(4, 1)
    initialise(model, path, space_of("a", "truck", "b", "c"))
    assert torch.equal(model.state_dict()[HEAD][1], before[HEAD][2])


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_official_files_give_rows_by_name_where_they_name_their_classes(kind, tmp_path: Path):
    first, config = student_of(3, 0)
    trained = TrainedStudent(first, config, space_of("car", "bus", "truck"), "here")
    export_checkpoint(trained, tmp_path / f"official.{kind}")
    model, _ = student_of(3, 1)
    initial = model.state_dict()[HEAD].clone()
    report = initialise(model, tmp_path / f"official.{kind}", space_of("truck", "car", "x"))
    head = model.state_dict()[HEAD]
    if kind == "pth":
        assert torch.equal(head[:2], first.state_dict()[HEAD][[2, 0]])
    else:
        # it has the tensors alone
        assert torch.equal(head, initial)
        assert "does not name its classes" in report.describe()
    assert torch.equal(head[2], initial[2])
    assert report.loaded > 50


def test_an_imported_file_of_known_classes_is_joined_by_name(tmp_path: Path):
    first, config = student_of(3, 0)
    trained = TrainedStudent(first, config, space_of("car", "bus", "truck"), "here")
    export_checkpoint(trained, tmp_path / "official.pth")
    categories = [{"id": 1, "name": "truck"}, {"id": 2, "name": "car"}, {"id": 3, "name": "x"}]
    table = {"images": [], "annotations": [], "categories": categories}
    (tmp_path / "a.json").write_text(json.dumps(table))
    done = import_checkpoint(
        tmp_path / "official.pth",
        tmp_path / "run",
        annotations=tmp_path / "a.json",
        overrides={"data.class_space": "contiguous"},
    )
    assert done.classes == "class head: 2 of 3 classes by name, the rest anew (x)"
