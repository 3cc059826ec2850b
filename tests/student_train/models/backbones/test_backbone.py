from pathlib import Path

import pytest
import timm
import torch
import torchvision

from student_train.errors import CheckpointError, ConfigError
from student_train.models.backbones.backbone import Backbone, BackboneConfig
from student_train.models.backbones.frozen_norm import FrozenBatchNorm

SWIN = "swin_tiny_patch4_window7_224"


def perturbed(model: torch.nn.Module) -> torch.nn.Module:
    """Away from initial values, statistics of batch norms included."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor += 0.5 * torch.rand_like(tensor)
            elif tensor.is_floating_point():
                tensor += (
                    0.05 * tensor.std().nan_to_num(1.0).clamp(min=0.1) * torch.randn_like(tensor)
                )
    return model.eval()


def saved(model: torch.nn.Module, folder: Path) -> str:
    path = folder / "weights.pth"
    torch.save(model.state_dict(), path)
    return str(path)


def torchvision_maps(model, images, stages):
    maps, x = [], images
    for name, module in model.named_children():
        if name in ("avgpool", "fc"):
            break
        x = module(x)
        if name in stages:
            maps.append(x)
    return maps


def test_resnet_equals_torchvision(tmp_path: Path) -> None:
    theirs = perturbed(torchvision.models.resnet18(weights=None))
    config = BackboneConfig(backbone="resnet18", backbone_weights=saved(theirs, tmp_path))
    ours = Backbone(config).eval()
    images = torch.randn(1, 3, 71, 90)
    with torch.no_grad():
        wanted = torchvision_maps(theirs, images, ("layer2", "layer3", "layer4"))
        found = ours(images)
    assert ours.channels == (128, 256, 512)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_dilated_stage_samples_to_the_strided_one() -> None:
    plain = Backbone(BackboneConfig(backbone="resnet26", strides=(32,)))
    dilated = Backbone(BackboneConfig(backbone="resnet26", strides=(16,), output_stride=16))
    dilated.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 97, 130)
    with torch.no_grad():
        (coarse,), (fine,) = plain.eval()(images), dilated.eval()(images)
    assert fine.shape[-2:] == (7, 9)
    torch.testing.assert_close(fine[:, :, ::2, ::2], coarse, atol=1e-4, rtol=1e-4)


def test_resnet_freezes_norms_stem_and_first_stage() -> None:
    backbone = Backbone(BackboneConfig(backbone="resnet18"))
    trained = {name for name, p in backbone.named_parameters() if p.requires_grad}
    assert {name.split(".")[1] for name in trained} == {"layer2", "layer3", "layer4"}
    assert not any("bn" in name or "downsample.1" in name for name in trained)
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    backbone.train()(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())


def test_frozen_norms_keep_half_precision() -> None:
    backbone = Backbone(BackboneConfig(backbone="resnet18"))
    dtypes = set()
    for module in backbone.modules():
        if isinstance(module, FrozenBatchNorm):
            module.register_forward_hook(lambda _m, _i, out: dtypes.add(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        backbone.train()(torch.randn(1, 3, 32, 32))[-1].float().sum().backward()
    assert dtypes == {torch.bfloat16}


def test_trained_norms() -> None:
    backbone = Backbone(BackboneConfig(backbone="resnet18", norm="batch"))
    assert all(p.requires_grad for p in backbone.parameters())
    backbone.train()(torch.randn(2, 3, 64, 64))
    assert backbone.body.bn1.running_mean.abs().sum() > 0


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_mobilenet_v2_from_torchvision(tmp_path: Path, norm: str) -> None:
    theirs = perturbed(torchvision.models.mobilenet_v2(weights=None))
    config = BackboneConfig(
        backbone="mobilenetv2_100", norm=norm, backbone_weights=saved(theirs, tmp_path)
    )
    images = torch.randn(1, 3, 65, 70)
    with torch.no_grad():
        found = Backbone(config).eval()(images)
        wanted, x = [], images
        for i, block in enumerate(theirs.features):
            x = block(x)
            if i in (6, 13, 17):
                wanted.append(x)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_real_mobilenet_weights_load(shared: Path) -> None:
    weights = shared / "backbones" / "mobilenet_v2-b0353104.pth"
    if not weights.is_file():
        pytest.skip("no MobileNetV2 weights in the shared folder")
    config = BackboneConfig(backbone="mobilenetv2_100", backbone_weights=str(weights))
    assert Backbone(config).channels == (32, 96, 320)


@pytest.mark.slow
def test_swin_equals_timm_where_maps_are_whole_windows(tmp_path: Path) -> None:
    # by default timm does not shift where a map is a single window; the official code does
    theirs = perturbed(timm.create_model(SWIN, always_partition=True, num_classes=10))
    config = BackboneConfig(backbone=SWIN, backbone_weights=saved(theirs, tmp_path))
    ours = Backbone(config).eval()
    maps = []
    handles = [
        theirs.layers[i].register_forward_hook(lambda _m, _i, out: maps.append(out))
        for i in (1, 2, 3)
    ]
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        theirs(images)
        found = ours(images)
    for handle in handles:
        handle.remove()
    for i, (a, b) in enumerate(zip(found, maps, strict=True), start=1):
        normed = torch.nn.functional.layer_norm(b, b.shape[-1:])
        torch.testing.assert_close(a.permute(0, 2, 3, 1), normed, atol=1e-3, rtol=1e-3)
        assert ours.body.get_submodule(f"norm{i}").weight.eq(1).all()


@pytest.mark.parametrize("size", [(1, 1), (29, 57), (56, 56)])
def test_swin_takes_any_size(size: tuple[int, int]) -> None:
    backbone = Backbone(BackboneConfig(backbone=SWIN, strides=(4, 8))).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, *size))
    for x, stride in zip(maps, (4, 8), strict=True):
        assert x.shape[-2:] == tuple(-(-side // stride) for side in size)


def test_swin_freezes_whole_stages() -> None:
    backbone = Backbone(BackboneConfig(backbone=SWIN, strides=(4, 8), frozen_stages=1))
    frozen = [name for name, p in backbone.named_parameters() if not p.requires_grad]
    assert {name.split(".")[1] for name in frozen} == {"patch_embed", "layers"}
    assert not any(".downsample." in name or ".layers.1." in name for name in frozen)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "resnet5"}, r"no backbone named 'resnet5'.*Did you mean 'resnet50'"),
        ({"strides": (8, 64)}, "not 64"),
        ({"backbone": SWIN, "strides": (2,)}, "not 2"),
    ],
)
def test_unknown_settings(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Backbone(BackboneConfig(**settings))


def test_weights_of_another_architecture(tmp_path: Path) -> None:
    weights = saved(timm.create_model("mobilenetv2_050"), tmp_path)
    with pytest.raises(CheckpointError, match="mobilenetv2_100 expects"):
        Backbone(BackboneConfig(backbone="mobilenetv2_100", backbone_weights=weights))
    with pytest.raises(CheckpointError, match=r"lacks .* parameters of test_efficientnet"):
        Backbone(BackboneConfig(backbone="test_efficientnet", backbone_weights=weights))


def test_missing_weights_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights file"):
        Backbone(BackboneConfig(backbone="resnet18", backbone_weights=str(tmp_path / "gone.pth")))
