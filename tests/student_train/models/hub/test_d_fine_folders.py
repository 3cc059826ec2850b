"""D-FINE from and to folders of transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from box_store.categories import Categories, Category, ClassSpace
from student_train.errors import CheckpointError
from student_train.export.transformers_folder import export_folder
from student_train.models import build_student
from student_train.models.families.d_fine.hub import HUB
from student_train.presets import load_preset
from student_train.runs.importing import import_checkpoint
from student_train.runs.trained import load_student
from student_train.training.initialising import initialise

transformers = pytest.importorskip("transformers")

# B0 in transformers' own words, from PaddlePaddle's PP-HGNetV2-B0
B0 = {
    "hidden_sizes": [64, 256, 512, 1024],
    "stem_channels": [3, 16, 16],
    "stage_in_channels": [16, 64, 256, 512],
    "stage_mid_channels": [16, 32, 64, 128],
    "stage_out_channels": [64, 256, 512, 1024],
    "stage_num_blocks": [1, 1, 2, 1],
    "stage_downsample": [False, True, True, True],
    "stage_light_block": [False, False, True, True],
    "stage_kernel_size": [3, 3, 5, 5],
    "stage_numb_of_layers": [3, 3, 3, 3],
    "use_learnable_affine_block": True,
}


def theirs(levels: int, **settings: object) -> Any:
    """A D-FINE of transformers in float64, every parameter and statistic moved off its start."""
    stages = [f"stage{i}" for i in range(5 - levels, 5)]
    backbone = transformers.HGNetV2Config(out_features=stages, **B0)
    said = {
        "encoder_in_channels": [256, 512, 1024][-levels:],
        "feat_strides": [8, 16, 32][-levels:],
        "encode_proj_layers": [levels - 1],
        "num_feature_levels": levels,
        "encoder_hidden_dim": 64,
        "decoder_in_channels": [64] * levels,
        "d_model": 64,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 56,
        "decoder_n_points": [3, 6, 3] if levels == 3 else [6, 6],
        "decoder_layers": 3,
        "num_queries": 12,
        "hidden_expansion": 0.5,
        "depth_mult": 0.34,
        "id2label": {0: "cat", 1: "dog", 2: "hen"},
        "label2id": {"cat": 0, "dog": 1, "hen": 2},
        **settings,
    }
    torch.manual_seed(0)
    model = transformers.DFineForObjectDetection(
        transformers.DFineConfig(backbone_config=backbone, **said)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith(("reg_scale", ".up")):
                parameter += 0.05 * torch.randn_like(parameter)
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer *= 1 + 0.5 * torch.rand_like(buffer)
    return model.eval()


def assert_equal_outputs(mine: nn.Module, other: nn.Module) -> None:
    # some constants of either are float32 even here
    torch.manual_seed(1)
    images = torch.rand(2, 3, 96, 128, dtype=torch.float64)
    mask = torch.zeros(2, 96, 128, dtype=torch.bool)
    with torch.no_grad():
        last = mine.eval().double()(images, mask).last
        found = other.eval().double()(images)
    assert found.logits.std() > 0.01
    torch.testing.assert_close(last.logits, found.logits, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(last.boxes, found.pred_boxes, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    ("levels", "settings"),
    [
        (3, {}),
        (2, {}),
        # encoder and decoder of different widths, another reach of the edges
        (3, {"encoder_hidden_dim": 96, "decoder_in_channels": [96] * 3, "reg_scale": 8.0}),
        (3, {"decoder_n_points": 2, "num_queries": 9}),
    ],
)
def test_a_folder_becomes_a_student_and_a_folder_again_with_equal_outputs(
    levels: int, settings: dict[str, object], tmp_path: Path
) -> None:
    model = theirs(levels, **settings)
    model.save_pretrained(tmp_path / "folder")
    done = import_checkpoint(tmp_path / "folder", tmp_path / "run")
    assert (done.family, done.source) == ("d_fine", "transformers")
    assert done.report.complete
    assert not done.report.unexpected
    assert "model.activation=silu" in done.warnings[0]
    assert done.class_space.names == ("cat", "dog", "hen")
    student = load_student(tmp_path / "run", "best")
    export_folder(student, tmp_path / "out")
    loaded, info = transformers.AutoModelForObjectDetection.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert_equal_outputs(student.model, model)
    assert_equal_outputs(student.model, loaded)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"decoder_activation_function": "silu"}, "silu, but this student has relu"),
        ({"layer_scale": 2}, "layer_scale=2"),
        ({"eval_idx": 1}, "eval_idx=1, for which .* whose last layer answers"),
        ({"backbone_config": {**B0, "stage_mid_channels": [8, 32, 64, 128]}}, "none of HGNetv2's"),
        ({"backbone_config": {"model_type": "resnet"}}, "model_type=resnet"),
    ],
)
def test_what_our_student_does_not_do_is_refused(
    changed: dict[str, object], message: str, tmp_path: Path
) -> None:
    settings = {"backbone_config": B0, **changed}
    with pytest.raises(CheckpointError, match=message):
        HUB.settings(json.loads(json.dumps(settings)))


def test_training_starts_from_a_folder_with_classes_by_name(tmp_path: Path) -> None:
    theirs(3).save_pretrained(tmp_path / "folder")
    weights = tmp_path / "folder"
    import_checkpoint(weights, tmp_path / "run")
    before = load_student(tmp_path / "run", "best")
    after = build_student(before.config.model)
    hens = Categories(tuple(Category(i, n) for i, n in enumerate(("hen", "cow", "cat"))))
    report = initialise(after, weights, ClassSpace("contiguous", hens))
    assert "2 of 3 classes by name, the rest anew (cow)" in report.describe()
    old, new = before.model.state_dict(), after.state_dict()
    for name, value in new.items():
        if name.endswith("num_batches_tracked"):
            continue
        if name.startswith("heads.classes."):
            assert torch.equal(value[[0, 2]], old[name][[2, 0]]), name
        elif not name.startswith(("queries.classes.", "denoising.label_embedding.")):
            assert torch.equal(value, old[name]), name
    other = build_student(load_preset("rtdetrv2-micro").model)
    with pytest.raises(CheckpointError, match="holds a d_fine, and this student is a rtdetr_v2"):
        initialise(other, weights, ClassSpace("contiguous", hens))


def test_training_from_a_name_that_is_not_kept_says_what_to_do(monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    student = build_student(load_preset("d-fine-micro").model)
    space = ClassSpace("contiguous", Categories((Category(0, "hen"),)))
    with pytest.raises(CheckpointError, match="nobody/nothing cannot be downloaded, and is not"):
        initialise(student, Path("hub:nobody/nothing"), space)
