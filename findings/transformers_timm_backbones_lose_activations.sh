#!/bin/sh
# transformers 5.23.0: a DETR on a timm backbone loses the backbone's activations.
#
# DetrModel, ConditionalDetrModel and DeformableDetrModel take any backbone of timm by name
# (use_timm_backbone=True) and put frozen batch norms in the place of its own. In timm's MobileNets,
# EfficientNets and RegNets a norm holds the activation after it (BatchNormAct2d is a BatchNorm2d):
# that goes with it. What is left is a network with a third to a half of its activations, which
# computes other maps from the same weights; nothing is said, pretrained weights load without a
# missing key. ResNets, whose activations are modules of their own, compute what timm does.
#
# Seen with transformers 5.23.0, timm 1.0.31, torch 2.14.1: activations 48 -> 16 (efficientnet_b0),
# 32 -> 10 (mobilenetv3_small_050), 53 -> 26 (regnety_002), 17 -> 17 (resnet18). Needs about 3 GB of
# downloads and two minutes; fails when what is said here is no longer so.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
if [ -n "${PYTHON:-}" ]; then python=$PYTHON; else
    python3 -m venv venv
    python=$work/venv/bin/python
    "$python" -m pip -q install transformers==5.23.0 timm==1.0.31 torch==2.14.1 torchvision==0.29.1
fi
HF_HUB_OFFLINE=1 "$python" -W ignore - <<'EOF'
import timm
import torch
import transformers
from torch import nn
from transformers import DeformableDetrConfig, DeformableDetrModel, DetrConfig, DetrModel

print("transformers", transformers.__version__, "timm", timm.__version__, "torch", torch.__version__)
KINDS = (nn.ReLU, nn.SiLU, nn.Hardswish, timm.layers.Swish, timm.layers.HardSwish)
small = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 32, "encoder_attention_heads": 2}
small |= {"decoder_attention_heads": 2, "use_timm_backbone": True, "use_pretrained_backbone": False}


def activations(model):
    return sum(isinstance(module, KINDS) for module in model.modules())


def shuffled(model):
    """Every number moved, batch statistics too, in the same way for the same network."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in sorted(model.state_dict().items()):
            if value.dtype == torch.float32:
                value.add_(0.1 * torch.rand(value.shape, generator=generator))
    return model.eval()


pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
for kind, settings in ((DetrModel, DetrConfig), (DeformableDetrModel, DeformableDetrConfig)):
    for name in ("efficientnet_b0", "mobilenetv3_small_050", "regnety_002", "resnet18"):
        torch.manual_seed(0)
        inside = next(
            module
            for module in kind(settings(backbone=name, **small)).modules()
            if hasattr(module, "feature_info")
        )
        bare = timm.create_model(name, features_only=True, out_indices=inside.feature_info.out_indices)
        given = {key: value for key, value in bare.state_dict().items() if "tracked" not in key}
        missing = inside.load_state_dict(shuffled(bare).state_dict(), strict=False).missing_keys
        left, before = activations(inside), activations(bare)
        with torch.no_grad():
            apart = (inside.eval()(pixels)[-1] - bare(pixels)[-1]).abs().max().item()
            scale = bare(pixels)[-1].abs().max().item()
        print(
            f"{kind.__name__} on {name}: {before} activations, {left} left; {len(missing)} keys "
            f"missing of {len(given)}; maps differ by {apart / scale:.2g} of their largest value"
        )
        assert not missing
        if name == "resnet18":
            assert (left, before) == (17, 17) and apart / scale < 1e-3, "ResNets differ now"
        else:
            assert left < 0.6 * before and apart / scale > 0.05, "activations are kept now"
print("as described")
EOF
