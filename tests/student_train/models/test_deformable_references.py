"""Deformable DETR and Swin against transformers, which wrote them independently of us."""

import re

import pytest
import torch
from torch import Tensor, nn

from student_train.models import DeformableDetr, DeformableDetrConfig
from student_train.models.backbones.swin import Swin, SwinShape
from student_train.models.official import export_official

transformers = pytest.importorskip("transformers")

# official name -> that of transformers, every one that fits
NAMES = [
    (r"^transformer\.", "model."),
    (r"^input_proj\.", "model.input_proj."),
    (r"(encoder\.layers\.\d+)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"(encoder\.layers\.\d+)\.norm2\.", r"\1.final_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm1\.", r"\1.encoder_attn_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm2\.", r"\1.self_attn_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm3\.", r"\1.final_layer_norm."),
    (r"\.linear(\d)\.", r".mlp.fc\1."),
    (r"\.cross_attn\.", ".encoder_attn."),
    (r"\.self_attn\.out_proj\.", ".self_attn.o_proj."),
]


def perturb(module: nn.Module) -> None:
    """Move every parameter off its initial value: zeros and ones hide errors."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An official state dict in the names of transformers."""
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        for pattern, name in NAMES:
            key = re.sub(pattern, name, key)
        packed = re.fullmatch(r"(.+self_attn)\.in_proj_(weight|bias)", key)
        if packed is None:
            found[key] = value
            continue
        for kind, part in zip("qkv", value.chunk(3), strict=True):
            found[f"{packed[1]}.{kind}_proj.{packed[2]}"] = part
    return found


class SharedBackbone(nn.Module):
    """Our backbone in the shape that transformers asks for: maps, each with its mask of pixels."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor, pixels: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [
            (each, nn.functional.interpolate(pixels[None].float(), size=each.shape[-2:])[0].bool())
            for each in self.backbone(images)
        ]


@pytest.fixture(scope="module")
def student(tiny_config) -> DeformableDetr:
    torch.manual_seed(0)
    config = DeformableDetrConfig(
        backbone=tiny_config.backbone,
        n_classes=7,
        n_queries=12,
        # the narrowest whose group norms have 32 groups, as official
        dim=128,
        n_heads=2,
        encoder_layers=2,
        decoder_layers=3,
        ffn_dim=48,
        dropout=0.0,
    )
    student = DeformableDetr(config).eval()
    perturb(student)
    return student


@pytest.fixture(scope="module")
def reference(student: DeformableDetr) -> nn.Module:
    sizes = {"hidden_sizes": [8, *student.backbone.channels], "depths": [1, 1, 1, 1]}
    theirs = transformers.DeformableDetrConfig(
        backbone_config=transformers.ResNetConfig(
            **sizes, embedding_size=8, out_features=["stage2", "stage3", "stage4"]
        ),
        two_stage=True,
        with_box_refine=True,
        num_queries=12,
        two_stage_num_proposals=12,
        num_labels=7,
        d_model=128,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        # unlike the original's, its networks are 1024 wide by default
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        disable_custom_kernels=True,
    )
    model = transformers.DeformableDetrForObjectDetection(theirs).eval()
    state = renamed({k: v for k, v in export_official(student).items() if "backbone" not in k})
    own = {key for key in model.state_dict() if "backbone" not in key}
    assert own == set(state)
    model.load_state_dict(state, strict=False)
    model.model.backbone = SharedBackbone(student.backbone)
    return model


def test_two_stage_equals_transformers(student, reference, padded) -> None:
    images, mask = padded([(97, 130), (75, 101)])
    with torch.no_grad():
        ours = student(images, mask)
        theirs = reference(pixel_values=images, pixel_mask=(~mask).long(), return_dict=True)
    assert len(ours.layers) == 3
    states = theirs.intermediate_hidden_states
    for i, layer in enumerate(ours.layers):
        logits = reference.class_embed[i](states[:, i])
        torch.testing.assert_close(layer.logits, logits, atol=5e-5, rtol=1e-4)
        boxes = theirs.intermediate_reference_points[:, i]
        torch.testing.assert_close(layer.boxes, boxes, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.last.boxes, theirs.pred_boxes, atol=1e-5, rtol=1e-4)
    proposals = theirs.enc_outputs_class, theirs.enc_outputs_coord_logits.sigmoid()
    torch.testing.assert_close(ours.proposals.logits, proposals[0], atol=5e-5, rtol=1e-4)
    torch.testing.assert_close(ours.proposals.boxes, proposals[1], atol=1e-5, rtol=1e-4)
    # the predictions are of different objects, or the comparison would see little
    assert ours.last.logits.std(1).mean() > 0.1
    assert ours.last.boxes.std(1).mean() > 0.05


# transformers' Swin -> the official name, every one that fits
SWIN_NAMES = [
    (r"^swin\.embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^swin\.embeddings\.norm\.", "patch_embed.norm."),
    (r"^swin\.encoder\.", ""),
    (r"\.attention\.", ".attn."),
    (r"\.attn\.o_proj\.", ".attn.proj."),
    (r"\.attn\.relative_position_bias\.", ".attn."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    # stage 1 is the official stage 0
    (r"^hidden_states_norms\.stage2\.", "norm1."),
    (r"^hidden_states_norms\.stage3\.", "norm2."),
    (r"^hidden_states_norms\.stage4\.", "norm3."),
]


def official_swin(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of transformers' Swin in official names."""
    found: dict[str, Tensor] = {}
    packed: dict[str, list[Tensor]] = {}
    for key, value in state.items():
        for pattern, name in SWIN_NAMES:
            key = re.sub(pattern, name, key)
        part = re.fullmatch(r"(.+)\.[qkv]_proj\.(\w+)", key)
        if part is None:
            found[key] = value
        else:
            packed.setdefault(f"{part[1]}.qkv.{part[2]}", []).append(value)
    return found | {name: torch.cat(parts) for name, parts in packed.items()}


# neither multiples of the window nor of the stride
@pytest.mark.parametrize("size", [(97, 130), (150, 211)])
def test_swin_equals_transformers(size: tuple[int, int]) -> None:
    config = transformers.SwinConfig(
        embed_dim=16,
        depths=[2, 2, 2, 1],
        num_heads=[1, 2, 4, 8],
        window_size=7,
        out_features=["stage2", "stage3", "stage4"],
        drop_path_rate=0.0,
    )
    theirs = transformers.SwinBackbone(config).eval()
    perturb(theirs)
    state = official_swin(theirs.state_dict())
    # a classifier's norm, which detection has not
    del state["swin.layernorm.weight"], state["swin.layernorm.bias"]
    ours = Swin(SwinShape(16, (2, 2, 2, 1), (1, 2, 4, 8), 7), (1, 2, 3)).eval()
    ours.load_state_dict(state)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = theirs(images).feature_maps
        found = ours(images)
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)
