"""LW-DETR and RF-DETR from folders of transformers."""

from pathlib import Path

import pytest
import torch
from torch import nn

from student_train.runs.importing import import_checkpoint
from student_train.runs.trained import load_student

transformers = pytest.importorskip("transformers")

DECODER = {
    "d_model": 64,
    "decoder_ffn_dim": 96,
    "decoder_n_points": 2,
    "decoder_layers": 2,
    "decoder_self_attention_heads": 4,
    "decoder_cross_attention_heads": 8,
    "num_queries": 7,
    "group_detr": 2,
    "id2label": {0: "cat", 1: "dog", 2: "hen"},
    "label2id": {"cat": 0, "dog": 1, "hen": 2},
}


def theirs(family: str) -> nn.Module:
    torch.manual_seed(0)
    if family == "lw_detr":
        vit = transformers.LwDetrViTConfig(
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=256,
            window_block_indices=[0],
            out_indices=[1, 2],
        )
        config = transformers.LwDetrConfig(
            backbone_config=vit, projector_scale_factors=[2.0, 0.5], **DECODER
        )
        model = transformers.LwDetrForObjectDetection(config)
    else:
        vit = transformers.RfDetrDinov2Config(
            hidden_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=64,
            patch_size=16,
            num_windows=2,
            out_indices=[1, 3],
        )
        config = transformers.RfDetrConfig(backbone_config=vit, layer_norm_eps=1e-6, **DECODER)
        model = transformers.RfDetrForObjectDetection(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model.eval()


@pytest.mark.parametrize("family", ["lw_detr", "rf_detr"])
def test_a_folder_becomes_a_student_with_equal_outputs(family: str, tmp_path: Path) -> None:
    model = theirs(family)
    model.save_pretrained(tmp_path / "folder")
    done = import_checkpoint(tmp_path / "folder", tmp_path / "run")
    assert (done.family, done.source) == (family, "transformers")
    assert done.report.complete
    assert done.class_space.names == ("cat", "dog", "hen")
    student = load_student(tmp_path / "run", "best").model.eval()
    images, mask = torch.randn(2, 3, 128, 128), torch.zeros(2, 128, 128, dtype=torch.bool)
    mask[1, :, 96:] = True
    images = images.masked_fill(mask[:, None], 0)
    with torch.no_grad():
        mine, other = student(images, mask).last, model(images, pixel_mask=(~mask).long())
    torch.testing.assert_close(mine.logits, other.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mine.boxes, other.pred_boxes, rtol=1e-4, atol=1e-4)
