"""Students of every family that transformers has, as folders that it loads: nothing missing, equal
outputs, equal pixels, and the same student when read again.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from box_store.categories import Categories, Category, ClassSpace
from student_train.config import TrainConfig
from student_train.data.transforms import EvalTransform, Scene
from student_train.errors import CheckpointError, ExportError
from student_train.export.transformers_folder import export_folder
from student_train.models import build_student, top_k
from student_train.presets import load_preset
from student_train.runs.importing import import_checkpoint
from student_train.runs.trained import TrainedStudent, load_student

transformers = pytest.importorskip("transformers")

NAMES = ("cat", "dog", "hen")
SPACE = ClassSpace("contiguous", Categories(tuple(Category(i, n) for i, n in enumerate(NAMES))))
DECODER = {"dim": 64, "n_heads": 4, "decoder_layers": 2, "ffn_dim": 96, "n_queries": 11}
ONE_MAP = {**DECODER, "backbone": "resnet18", "encoder_layers": 2}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "conditional": ("conditional-micro", {**ONE_MAP, "strides": (32,), "output_stride": 32}),
    "conditional, dilated": (
        "conditional-micro",
        {**ONE_MAP, "backbone": "resnet50", "strides": (16,), "output_stride": 16},
    ),
    "dab": ("dab-micro", {**ONE_MAP, "strides": (32,), "output_stride": 32, "temperature": 20.0}),
    "deformable": (
        "deformable-micro",
        {
            **ONE_MAP,
            "dim": 128,
            "strides": (8, 16, 32),
            "n_levels": 4,
            "n_points": 3,
            "mixed_selection": False,
            "look_forward_twice": False,
        },
    ),
    "yolos": ("yolos-micro", {"n_queries": 7, "table_size": (64, 96), "mid_table_size": None}),
    "yolos with later tables": (
        "yolos-micro",
        {"n_queries": 7, "table_size": (64, 96), "mid_table_size": (64, 96)},
    ),
    "lw_detr": ("lw-detr-micro", {**DECODER, "n_sampling_heads": 8, "levels": ("P3", "P5")}),
    "rf_detr": ("rf-detr-micro", {**DECODER, "n_sampling_heads": 8, "stages": (1, 3)}),
    "rtdetr_v2": (
        "rtdetrv2-micro",
        {**DECODER, "backbone": "presnet18", "encoder_dim": 64, "depth": 1.0},
    ),
    "d_fine": (
        "d-fine-micro",
        {**DECODER, "backbone": "hgnetv2_b0", "encoder_dim": 64, "n_points": (3, 6, 3)},
    ),
}
# what is said of a student's training alone is not in config.json
TRAINING = (
    "norm",
    "frozen_stages",
    "frozen_stem",
    "drop_path",
    "top_k",
    "backbone_weights",
    "attention_backend",
)


def student(case: str, **augment: Any) -> TrainedStudent:
    """A small one with every parameter and statistic moved off its start."""
    preset, settings = CASES[case]
    config = load_preset(preset)
    strides = {"strides": (8, 16, 32)} if case in ("rtdetr_v2", "d_fine") else {}
    model = replace(config.model, n_classes=3, **{**strides, **settings})
    config = replace(config, model=model, augment=replace(config.augment, **augment))
    torch.manual_seed(0)
    built = build_student(config.model)
    with torch.no_grad():
        for name, value in built.state_dict().items():
            if name.endswith("running_var"):
                value *= 1 + 0.5 * torch.rand_like(value)
            elif value.is_floating_point() and not name.endswith((".up", "reg_scale")):
                value += 0.05 * torch.randn_like(value)
    return TrainedStudent(built.eval(), config, SPACE, "a test")


def loaded(folder: Path) -> Any:
    """What transformers makes of a folder, nothing missing and nothing left over."""
    model, info = transformers.AutoModelForObjectDetection.from_pretrained(
        folder, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert model.config.id2label == dict(enumerate(NAMES))
    return model.eval()


def batch(config: TrainConfig, masked: bool) -> tuple[torch.Tensor, torch.Tensor]:
    sides = (128, 128) if config.model.side_multiple > 1 else (96, 128)
    torch.manual_seed(1)
    images, mask = torch.rand(2, 3, *sides), torch.zeros(2, *sides, dtype=torch.bool)
    if masked:
        mask[1, :, 100:] = True
        mask[1, 70:] = True
    return images.masked_fill(mask[:, None], 0), mask


@pytest.mark.parametrize("case", CASES)
def test_a_student_is_the_same_in_transformers_and_when_read_again(
    case: str, tmp_path: Path
) -> None:
    mine = student(case)
    done = export_folder(mine, tmp_path / "out")
    theirs = loaded(done.path)
    images, mask = batch(mine.config, not case.startswith(("rtdetr", "d_fine", "yolos")))
    with torch.no_grad():
        ours = mine.model(images, mask).last
        other = theirs(images, pixel_mask=(~mask).long())
    assert ours.logits.std() > 0.01
    torch.testing.assert_close(other.logits, ours.logits, rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(other.pred_boxes, ours.boxes, rtol=1e-4, atol=2e-5)

    back = import_checkpoint(done.path, tmp_path / "run")
    assert back.report.complete
    again = load_student(tmp_path / "run")
    assert again.class_space == mine.class_space
    same = {
        name: getattr(mine.config.model, name)
        for name in TRAINING
        if hasattr(mine.config.model, name)
    }
    assert replace(again.config.model, **same) == mine.config.model
    state, wanted = again.model.state_dict(), mine.model.state_dict()
    for name, value in wanted.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(state[name], value), name


@pytest.mark.parametrize(
    ("case", "augment"),
    [
        ("conditional", {"eval_short_side": 96, "eval_long_side": 160}),
        ("dab", {"eval_short_side": 96, "eval_long_side": 160}),
        ("deformable", {"eval_short_side": 96, "eval_long_side": 160}),
        ("yolos", {"eval_short_side": 100, "eval_long_side": 160}),
        ("lw_detr", {"eval_square": 128}),
        ("rf_detr", {"eval_square": 128}),
        ("rtdetr_v2", {"eval_square": 128}),
        ("d_fine", {"eval_square": 128}),
    ],
)
def test_pixels_and_detections_are_equal(
    case: str, augment: dict[str, int], tmp_path: Path
) -> None:
    mine = student(case, **augment)
    done = export_folder(mine, tmp_path / "out")
    assert not done.note
    noise = np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8)
    scene = Scene.start(torch.from_numpy(noise).permute(2, 0, 1), torch.zeros(0, 4))
    seen = EvalTransform(mine.config.augment)(scene, torch.Generator()).image[None]
    mask = torch.zeros(1, *seen.shape[-2:], dtype=torch.bool)
    pixels = mine.config.model.pixels.scaled(seen, mask)
    processor = transformers.AutoImageProcessor.from_pretrained(done.path)
    given = processor(Image.fromarray(noise), return_tensors="pt")
    torch.testing.assert_close(given["pixel_values"], pixels, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        (found,) = top_k(mine.model(pixels, mask), torch.tensor([[150, 200]]), 5)
        output = loaded(done.path)(**given)
    (theirs,) = processor.post_process_object_detection(
        output, threshold=0.0, target_sizes=[(150, 200)]
    )
    best = theirs["scores"].argsort(descending=True, stable=True)[:5]
    torch.testing.assert_close(theirs["scores"][best], found.scores, rtol=1e-3, atol=1e-4)
    assert theirs["labels"][best].tolist() == found.labels.tolist()
    torch.testing.assert_close(theirs["boxes"][best], found.boxes_xyxy, rtol=1e-3, atol=2e-2)


def test_a_student_that_keeps_shapes_where_theirs_cannot_is_squashed_and_says_so(
    tmp_path: Path,
) -> None:
    mine = student("lw_detr", eval_square=None, eval_short_side=100, squares=(), same_square=False)
    done = export_folder(mine, tmp_path / "out")
    assert "squashed to 64 x 64 px there" in done.note
    settings = json.loads((done.path / "preprocessor_config.json").read_text())
    assert settings["size"] == {"height": 64, "width": 64}


@pytest.mark.parametrize(
    ("preset", "changed", "error", "message"),
    [
        (
            "dino-micro",
            {},
            ExportError,
            "transformers has no dino: folders are written for .*d_fine",
        ),
        ("deformable-micro", {"mixed_selection": True}, CheckpointError, "mixed_selection=true"),
        ("conditional-micro", {}, CheckpointError, "batch norms of test_efficientnet by some"),
        (
            "deformable-micro",
            {"backbone": "swin_tiny_patch4_window7_224", "dim": 128, "mixed_selection": False},
            CheckpointError,
            "is here none of them",
        ),
        ("dab-micro", {"n_patterns": 2}, CheckpointError, "n_patterns=2"),
        ("d-fine-micro", {"activation": "silu"}, CheckpointError, "so not DEIM"),
        (
            "yolos-micro",
            {"table_size": (64, 96), "mid_table_size": (96, 96)},
            CheckpointError,
            "one size for all tables",
        ),
    ],
)
def test_what_transformers_does_not_do_is_refused(
    preset: str,
    changed: dict[str, Any],
    error: type[Exception],
    message: str,
    tmp_path: Path,
) -> None:
    config = load_preset(preset)
    config = replace(config, model=replace(config.model, **changed))
    mine = TrainedStudent(build_student(config.model), config, SPACE, "a test")
    with pytest.raises(error, match=message):
        export_folder(mine, tmp_path / "out")
    assert not (tmp_path / "out").exists()
