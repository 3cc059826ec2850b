"""Hugging Face transformers: folders, processors, ids."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from box_store.errors import UsageError
from teacher_infer.adapters.loading import quiet
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec
from teacher_infer.teachers.loaded import load_teacher, weights_files

Pictures = dict[str, np.ndarray]


def spec(model: str | Path, **options: str) -> AdapterSpec:
    return AdapterSpec("transformers", str(model), score_floor=0.1, threads=1, options=options)


@pytest.mark.slow
def test_it_predicts_what_the_library_does(detr_folder: Path, pictures: Pictures) -> None:
    teacher = load_teacher(spec(detr_folder))
    assert teacher.class_names == ("N/A", "person", "car", "kite")
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    with quiet(), torch.inference_mode():
        processor: Any = AutoImageProcessor.from_pretrained(detr_folder)
        model: Any = AutoModelForObjectDetection.from_pretrained(detr_folder).eval()
        picture = pictures["odd"]
        outputs = model(**processor(images=picture, return_tensors="pt"))
        theirs = processor.post_process_object_detection(
            outputs, threshold=0.1, target_sizes=[picture.shape[:2]]
        )[0]
    ours = teacher.predict([picture])[0]
    assert len(ours) == len(theirs["scores"]) > 0
    order = theirs["scores"].argsort(descending=True, stable=True)
    assert ours.scores == pytest.approx(theirs["scores"][order].numpy(), abs=1e-6)
    assert ours.class_ids.tolist() == theirs["labels"][order].tolist()


@pytest.mark.slow
def test_the_size_can_be_changed(detr_folder: Path, pictures: Pictures) -> None:
    usual = load_teacher(spec(detr_folder)).predict([pictures["first"]])[0]
    larger = load_teacher(spec(detr_folder, image_size="160x120")).predict([pictures["first"]])[0]
    assert not np.array_equal(usual.scores, larger.scores)


@pytest.mark.slow
def test_random_weights_come_from_the_config_alone(
    detr_folder: Path, tmp_path: Path, pictures: Pictures
) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((detr_folder / name).read_bytes())
    found = load_teacher(spec(tmp_path, weights="random")).predict([pictures["first"]])
    assert found == load_teacher(spec(tmp_path, weights="random")).predict([pictures["first"]])
    assert [path.name for path in weights_files(spec(tmp_path, weights="random"))] == [
        "config.json",
        "preprocessor_config.json",
    ]
    with pytest.raises(AdapterError, match=r"expected a folder with config.json"):
        load_teacher(spec(tmp_path))


@pytest.mark.slow
def test_its_files_are_config_preprocessing_and_weights(detr_folder: Path) -> None:
    assert [path.name for path in weights_files(spec(detr_folder))] == [
        "config.json",
        "preprocessor_config.json",
        "model.safetensors",
    ]


@pytest.mark.slow
def test_what_is_neither_here_nor_on_the_hub_is_a_sentence(tmp_path: Path) -> None:
    assert weights_files(spec("nobody/nothing-at-all")) == []
    with pytest.raises(AdapterError, match="can't load a detector from 'nobody/nothing-at-all'"):
        load_teacher(spec("nobody/nothing-at-all"))
    with pytest.raises(AdapterError, match="can't load a detector"):
        load_teacher(spec(tmp_path))


def test_weights_are_part_of_the_folder() -> None:
    with pytest.raises(UsageError, match=r"weights=file.bin: a transformers model brings"):
        weights_files(spec("any/model", weights="file.bin"))


@pytest.fixture
def half_folder(detr_folder: Path, tmp_path: Path) -> Path:
    """The folder of a model in half precision, as `model.half().save_pretrained` leaves it."""
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    folder = tmp_path / "half"
    with quiet():
        model: Any = AutoModelForObjectDetection.from_pretrained(detr_folder)
        model.half().save_pretrained(folder)
        AutoImageProcessor.from_pretrained(detr_folder).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"weights": "random"}])
def test_half_precision_is_computed_in_float32_on_a_cpu(
    half_folder: Path, detr_folder: Path, pictures: Pictures, options: dict[str, str]
) -> None:
    teacher = load_teacher(spec(half_folder, **options))
    assert teacher.runtime["dtype"] == "float32"
    ours = teacher.predict([pictures["first"]])[0]
    theirs = load_teacher(spec(detr_folder, **options)).predict([pictures["first"]])[0]
    assert len(ours) > 0
    if not options:
        assert ours.scores[:3] == pytest.approx(theirs.scores[:3], abs=1e-2)


@pytest.mark.slow
def test_what_resizes_is_pinned_and_said(detr_folder: Path, pictures: Pictures) -> None:
    usual, pillow = (
        load_teacher(spec(detr_folder, **options)) for options in ({}, {"processor": "pil"})
    )
    assert usual.runtime["processor"].startswith("torchvision 0.")
    assert pillow.runtime["processor"].startswith("pillow ")
    # the pixels differ by a grey level here and there: the scores tell
    found = [teacher.predict([pictures["odd"]])[0] for teacher in (usual, pillow)]
    assert not np.array_equal(found[0].scores, found[1].scores)
    with pytest.raises(UsageError, match="processor=pill: expected one of torchvision, pil"):
        load_teacher(spec(detr_folder, processor="pill"))
