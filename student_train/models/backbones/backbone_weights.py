"""Pretrained backbones from the files people have: torchvision, timm, official Swin, DeiT."""

from __future__ import annotations

import re

import timm
from torch import Tensor, nn

from student_train.errors import CheckpointError
from student_train.models.backbones.swin import Swin
from student_train.models.backbones.token_swin import TokenSwin
from student_train.models.backbones.vit import TokenViT
from student_train.models.weights_file import read_checkpoint

# what classifiers have beyond the feature maps
_CLASSIFIER = re.compile(
    r"^(head|fc|classifier|conv_head|bn2|norm|norm_pre|global_pool)(\.|$)"
    r"|relative_position_index$|attn_mask$|num_batches_tracked$"
)

# parameters that detection adds to a classifier's
_ADDED: dict[type[nn.Module], str] = {
    Swin: r"^norm\d\.",
    TokenSwin: (
        r"^norm\d\.|^det_|\.det_pos_linear\.|downsample\.(expansion|norm2)\."
        r"|^layers\.3\.downsample\."
    ),
    TokenViT: r"^(det_token|mid_pos_embed)$",
}


def load_backbone_weights(body: nn.Module, name: str, weights: str) -> None:
    """Fill `body` (timm's feature extractor, `Swin` ...) with the weights of a classifier.

    `weights` is a file, or `timm` for timm's own pretrained weights, which are downloaded. Every
    parameter of the body must be in the file, save those that detection adds.

    Raises CheckpointError naming missing or misshapen parameters.
    """
    state = _from_timm(name) if weights == "timm" else read_checkpoint(weights)
    state = to_body_names(state, body)
    own = body.state_dict()
    missing = [
        key
        for key in own
        if key not in state and not key.endswith("num_batches_tracked") and not _added(key, body)
    ]
    if missing:
        raise CheckpointError(
            f"{weights} lacks {len(missing)} of the {len(own)} parameters of {name}, "
            f"first {missing[0]!r}; its own first is {next(iter(state), 'none')!r}. "
            "Is it another architecture's?"
        )
    for key, value in state.items():
        if key in own and own[key].shape != value.shape:
            raise CheckpointError(
                f"{weights}: {key} has shape {tuple(value.shape)}, "
                f"{name} expects {tuple(own[key].shape)}"
            )
    strange = [key for key in state if key not in own and not _beyond(key, body)]
    if strange:
        raise CheckpointError(
            f"{weights} holds {len(strange)} parameters that {name} has no place for, "
            f"first {strange[0]!r}"
        )
    body.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)


def to_body_names(state: dict[str, Tensor], body: nn.Module) -> dict[str, Tensor]:
    """Rename a classifier's parameters to those of a backbone body; unknown names stay."""
    if isinstance(body, Swin | TokenSwin):
        return _swin_names(state)
    if isinstance(body, TokenViT):
        return body.from_classifier(state)
    if "features.0.0.weight" in state and "features.18.0.weight" in state:
        return _mobilenet_v2_names(state)
    own = body.state_dict()
    flat = {key.replace(".", "_"): key for key in own}
    # timm joins the names of flattened stages with an underscore in feature extractors
    return {flat.get(key.replace(".", "_"), key): value for key, value in state.items()}


def _from_timm(name: str) -> dict[str, Tensor]:
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:
        # whatever the hub's client raises without a network; timm says which variant it wanted
        raise CheckpointError(f"timm could not fetch weights of {name}: {error}") from error


def _added(key: str, body: nn.Module) -> bool:
    pattern = _ADDED.get(type(body))
    return pattern is not None and re.search(pattern, key) is not None


def _beyond(key: str, body: nn.Module) -> bool:
    """Parts of a classifier that a detector has no use for: its head, and stages after the last
    map.
    """
    if _CLASSIFIER.search(key):
        return True
    numbered = re.match(r"(features|blocks|stages|layers|layer|stages_|blocks_)\.?(\d+)", key)
    if numbered is None:
        return False
    kept = [
        int(found[1])
        for own in body.state_dict()
        if (found := re.match(re.escape(numbered[1]) + r"\.?(\d+)", own))
    ]
    return (
        not kept or int(numbered[2]) > max(kept) or (isinstance(body, Swin) and "downsample" in key)
    )


def _swin_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm halves the map at a stage's beginning, official code at the end of the one before."""
    if "layers.0.downsample.reduction.weight" in state:
        return state
    return {
        re.sub(
            r"^layers\.(\d)\.downsample",
            lambda found: f"layers.{int(found[1]) - 1}.downsample",
            key,
        ): value
        for key, value in state.items()
    }


# torchvision's blocks 1..17 by timm's stages
_MOBILENET_V2_STAGES = (1, 2, 3, 4, 3, 3, 1)


def _mobilenet_v2_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's MobileNetV2 (`features.i.conv.j`) to timm's (`blocks.s.b.conv_pw`)."""
    place = [(s, b) for s, count in enumerate(_MOBILENET_V2_STAGES) for b in range(count)]
    first = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}
    later = {
        "0.0": "conv_pw",
        "0.1": "bn1",
        "1.0": "conv_dw",
        "1.1": "bn2",
        "2": "conv_pwl",
        "3": "bn3",
    }
    names: dict[str, Tensor] = {}
    for key, value in state.items():
        found = re.fullmatch(r"features\.(\d+)\.(?:conv\.)?(\d(?:\.\d)?)\.(\w+)", key)
        if found is None:
            names[key] = value
            continue
        index, part, leaf = int(found[1]), found[2], found[3]
        if index == 0:
            stem = {"0": "conv_stem", "1": "bn1"}[part]
            names[f"{stem}.{leaf}"] = value
        elif index <= len(place):
            stage, block = place[index - 1]
            name = (first if index == 1 else later)[part]
            names[f"blocks.{stage}.{block}.{name}.{leaf}"] = value
        else:
            # the last 1x1 convolution belongs to the classifier
            names[key] = value
    return names
