"""The shipped weights: small, whole, and what their readers expect."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from box_store.errors import DataError
from student_train.presets import load_preset
from student_train.runs.trained import load_student
from teach_detr.scenes.sprites import TOYS
from teach_detr.toy_teachers.shipped import (
    MMDET_TEACHER,
    START_STUDENT,
    half,
    mmdet_checkpoint,
    read_weights,
    weights_folder,
)


def test_they_ship_and_stay_small() -> None:
    sizes = [path.stat().st_size for path in weights_folder().glob("*.safetensors")]
    assert len(sizes) == 2
    assert sum(sizes) < 12 * 2**20


def test_the_start_student_fits_the_demos_preset() -> None:
    student = load_student(weights_folder() / START_STUDENT)
    assert student.class_space.categories.names == tuple(toy.name for toy in TOYS)
    preset = load_preset("dino-demo").model
    for name in ("backbone", "dim", "n_queries", "encoder_layers", "decoder_layers", "strides"):
        assert getattr(student.config.model, name) == getattr(preset, name), name


def test_the_mmdet_teacher_becomes_a_checkpoint_with_its_class_names(tmp_path: Path) -> None:
    path = mmdet_checkpoint(tmp_path / "new" / "teacher.pth")
    saved = torch.load(path, weights_only=True)
    assert saved["meta"]["dataset_meta"]["classes"] == [toy.name for toy in TOYS]
    assert all(v.dtype != torch.float16 for v in saved["state_dict"].values())


def test_halving_keeps_whole_numbers_and_loses_little(tmp_path: Path) -> None:
    tensors = {"w": torch.linspace(-1, 1, 9), "n": torch.tensor(7)}
    save_file(half(tensors), tmp_path / "x.safetensors", metadata={"a": "b"})
    back, metadata = read_weights(tmp_path / "x.safetensors")
    assert metadata["a"] == "b"
    assert back["n"].dtype == torch.int64
    torch.testing.assert_close(back["w"], tensors["w"], atol=1e-3, rtol=1e-3)


def test_damaged_weights_say_how_to_get_new_ones(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"oops")
    for name in ("x", "absent"):
        with pytest.raises(DataError, match="teach-detr demo-weights"):
            read_weights(tmp_path / f"{name}.safetensors")
    assert MMDET_TEACHER != START_STUDENT
