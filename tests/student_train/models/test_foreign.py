"""DINO of detrex and mmdet: their names, and what mmdet itself computes with the same weights."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from student_train.models import Dino, DinoConfig
from student_train.models.official import (
    detect_family,
    export_official,
    load_official,
    read_checkpoint,
    translate,
)
from student_train.models.official.names import settings_from_shapes

SMALL = DinoConfig(
    n_classes=80,
    n_queries=30,
    encoder_layers=2,
    decoder_layers=2,
    ffn_dim=64,
    share_heads=False,
    box_eps=1e-5,
)


def mmdet_dino(backbone: str):
    """mmdet's DINO from the config in its wheel, made small, every parameter moved."""
    pytest.importorskip("mmdet")
    from mmengine.config import Config, ConfigDict

    from teacher_infer.adapters import mmcv_ops

    mmcv_ops.install()
    import mmdet
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules()
    configs = Path(mmdet.__file__).parent / ".mim" / "configs" / "dino"
    model = Config.fromfile(configs / "dino-4scale_r50_8xb2-12e_coco.py").model
    if backbone == "swin":
        model.backbone = ConfigDict(
            type="SwinTransformer", embed_dims=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24],
            window_size=7, out_indices=(1, 2, 3), drop_path_rate=0.0,
        )  # fmt: skip
        model.neck.in_channels = [192, 384, 768]
    model.backbone.init_cfg = None
    model.num_queries = 30
    for part in (model.encoder, model.decoder):
        part.num_layers = 2
        part.layer_cfg.ffn_cfg.feedforward_channels = 64
    detector = MODELS.build(model).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        # mmdet leaves these as the memory was until its own initialisation
        detector.level_embed.zero_()
        for parameter in detector.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return detector


def mmdet_predictions(detector, images: torch.Tensor, sizes: list[tuple[int, int]]):
    """Logits and boxes of every decoder layer."""
    from mmdet.structures import DetDataSample

    samples = []
    for size in sizes:
        sample = DetDataSample()
        sample.set_metainfo({"img_shape": size, "batch_input_shape": tuple(images.shape[-2:])})
        samples.append(sample)
    with torch.no_grad():
        out = detector.forward_transformer(detector.extract_feat(images), samples)
        return detector.bbox_head(out["hidden_states"], out["references"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backbone", ["resnet50", "swin"])
def test_mmdet_computes_the_same(backbone: str, padded, tmp_path: Path):
    from mmengine.logging.history_buffer import HistoryBuffer

    detector = mmdet_dino(backbone)
    records = HistoryBuffer()
    records.update(1.0)
    content = {
        "meta": {"cfg": "a text"},
        "state_dict": detector.state_dict(),
        "message_hub": {"log_scalars": {"train/loss": records}},
    }
    torch.save(content, tmp_path / "epoch_12.pth")

    translation = translate(read_checkpoint(tmp_path / "epoch_12.pth"))
    assert translation.source == "mmdet"
    assert detect_family(translation.state) == "dino"
    found = settings_from_shapes("dino", translation.state) | translation.settings
    config = DinoConfig(**found)
    assert config.backbone == {"swin": "swin_tiny_patch4_window7_224"}.get(backbone, backbone)
    assert (config.n_classes, config.share_heads) == (80, False)
    student = Dino(config).eval()
    assert load_official(student, translation.state).complete

    sizes = [(70, 93), (61, 64)]
    images, mask = padded(sizes)
    logits, boxes = mmdet_predictions(detector, images, sizes)
    with torch.no_grad():
        layers = student(images, mask).layers
    assert logits.std() > 0.5
    for layer, ours in enumerate(layers):
        assert torch.allclose(ours.logits, logits[layer], atol=1e-4)
        assert torch.allclose(ours.boxes, boxes[layer], atol=1e-4)


# names that detrex's modules give their parameters -> what the official code calls them
DETREX = {
    "backbone.stem.conv1.weight": "backbone.0.body.conv1.weight",
    "backbone.stem.conv1.norm.running_var": "backbone.0.body.bn1.running_var",
    "backbone.res2.0.shortcut.weight": "backbone.0.body.layer1.0.downsample.0.weight",
    "backbone.res2.0.shortcut.norm.bias": "backbone.0.body.layer1.0.downsample.1.bias",
    "backbone.res5.2.conv3.norm.weight": "backbone.0.body.layer4.2.bn3.weight",
    "neck.convs.1.conv.bias": "input_proj.1.0.bias",
    "neck.convs.1.norm.weight": "input_proj.1.1.weight",
    "neck.extra_convs.0.conv.weight": "input_proj.3.0.weight",
    "transformer.level_embeds": "transformer.level_embed",
    "transformer.tgt_embed.weight": "transformer.tgt_embed.weight",
    "transformer.enc_output_norm.bias": "transformer.enc_output_norm.bias",
    "transformer.encoder.layers.1.attentions.0.value_proj.weight": (
        "transformer.encoder.layers.1.self_attn.value_proj.weight"
    ),
    "transformer.encoder.layers.1.ffns.0.layers.0.0.bias": (
        "transformer.encoder.layers.1.linear1.bias"
    ),
    "transformer.encoder.layers.1.ffns.0.layers.1.weight": (
        "transformer.encoder.layers.1.linear2.weight"
    ),
    "transformer.encoder.layers.1.norms.1.weight": "transformer.encoder.layers.1.norm2.weight",
    "transformer.decoder.layers.0.attentions.0.attn.in_proj_weight": (
        "transformer.decoder.layers.0.self_attn.in_proj_weight"
    ),
    "transformer.decoder.layers.0.attentions.1.sampling_offsets.bias": (
        "transformer.decoder.layers.0.cross_attn.sampling_offsets.bias"
    ),
    "transformer.decoder.layers.0.norms.0.weight": "transformer.decoder.layers.0.norm2.weight",
    "transformer.decoder.layers.0.norms.1.weight": "transformer.decoder.layers.0.norm1.weight",
    "transformer.decoder.layers.0.norms.2.bias": "transformer.decoder.layers.0.norm3.bias",
    "transformer.decoder.ref_point_head.layers.1.weight": (
        "transformer.decoder.ref_point_head.layers.1.weight"
    ),
    "transformer.decoder.norm.weight": "transformer.decoder.norm.weight",
    "class_embed.1.weight": "class_embed.1.weight",
    "class_embed.2.weight": "transformer.enc_out_class_embed.weight",
    "transformer.decoder.bbox_embed.2.layers.0.bias": (
        "transformer.enc_out_bbox_embed.layers.0.bias"
    ),
    "label_enc.weight": "label_enc.weight",
}


def as_detrex(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """An official state dict under detrex's names, written the other way round than `foreign`."""
    found = {}
    for name, value in state.items():
        parts = name.split(".")
        if name.startswith("backbone.0.body.layer"):
            stage, block, rest = int(parts[3][5:]) + 1, parts[4], parts[5:]
            tail = ".".join(rest)
            tail = tail.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
            for i in "123":
                tail = tail.replace(f"bn{i}", f"conv{i}.norm")
            name = f"backbone.res{stage}.{block}.{tail}"
        elif name.startswith("backbone.0.body."):
            tail = ".".join(parts[3:]).replace("bn1", "conv1.norm")
            name = f"backbone.stem.{tail}"
        elif name.startswith("input_proj."):
            level, kind = int(parts[1]), {"0": "conv", "1": "norm"}[parts[2]]
            place = f"convs.{level}" if level < 3 else f"extra_convs.{level - 3}"
            name = f"neck.{place}.{kind}.{parts[3]}"
        elif name.startswith(("transformer.encoder.layers.", "transformer.decoder.layers.")):
            coder, layer, module, rest = parts[1], parts[3], parts[4], ".".join(parts[5:])
            norms = {"encoder": {"norm1": 0, "norm2": 1}, "decoder": {"norm2": 0, "norm1": 1}}
            if module.startswith("norm"):
                inner = f"norms.{norms[coder].get(module, 2)}"
            elif module.startswith("linear"):
                inner = {"linear1": "ffns.0.layers.0.0", "linear2": "ffns.0.layers.1"}[module]
            elif module == "cross_attn":
                inner = "attentions.1"
            else:
                inner = "attentions.0.attn" if coder == "decoder" else "attentions.0"
            name = f"transformer.{coder}.layers.{layer}.{inner}.{rest}"
        elif name == "transformer.level_embed":
            name = "transformer.level_embeds"
        elif name.startswith("transformer.enc_out_"):
            kind = parts[1].removeprefix("enc_out_")
            name = f"{kind}.2." + ".".join(parts[2:])
        elif name == "label_enc.weight":
            value = value[:-1]
        found[name] = value
    for name in [key for key in found if key.startswith(("class_embed", "bbox_embed"))]:
        found[f"transformer.decoder.{name}"] = found[name]
    return found


@pytest.fixture(scope="module")
def small() -> Dino:
    torch.manual_seed(0)
    student = Dino(SMALL)
    with torch.no_grad():
        for parameter in student.parameters():
            # heads of their own start as copies
            parameter += 0.01 * torch.randn_like(parameter)
    return student


def test_detrex_names(small: Dino):
    theirs = as_detrex(export_official(small))
    assert set(DETREX) <= set(theirs)
    translation = translate(theirs)
    origin = {theirs: official for official, theirs in translation.origin.items()}
    for name, official in DETREX.items():
        assert torch.equal(translation.state[official][: len(theirs[name])], theirs[name])
        assert official in translation.state
        assert origin.get(name, official) == official


def test_a_detrex_checkpoint_loads_whole_and_tells_its_positions(small: Dino):
    translation = translate(as_detrex(export_official(small)))
    assert translation.source == "detrex"
    assert translation.settings["position_offset"] == 0.5
    assert translation.settings["temperature"] == 10000
    found = settings_from_shapes("dino", translation.state)
    assert found["share_heads"] is False
    assert (found["n_classes"], found["strides"]) == (80, (8, 16, 32))
    assert found["backbone"] == "resnet50"
    other = Dino(SMALL)
    report = load_official(other, translation.state)
    assert report.complete
    labels = "denoising.label_embedding.weight"
    expected = small.state_dict()
    for key, value in other.state_dict().items():
        rows = value[:-1] if key == labels else value
        assert torch.equal(rows, expected[key][: len(rows)] if rows.ndim else expected[key]), key
    # nobody looks the last row up
    assert translation.added == ("label_enc.weight",)


def test_positions_counted_from_the_centres_change_the_outcome(small: Dino, padded):
    shifted = Dino(replace(SMALL, position_offset=0.5))
    shifted.load_state_dict(small.state_dict())
    batch = padded([(64, 64)])
    with torch.no_grad():
        ours, theirs = small.eval()(*batch).last.logits, shifted.eval()(*batch).last.logits
    assert not torch.allclose(ours, theirs, atol=1e-3)


def test_heads_that_differ_between_their_two_places_are_not_merged(small: Dino):
    theirs = as_detrex(export_official(small))
    theirs["transformer.decoder.class_embed.0.bias"] = theirs["class_embed.0.bias"] + 1
    report = load_official(Dino(SMALL), translate(theirs).state, strict=False)
    assert len(report.differing) == 1
    assert "class_embed.0.bias" in report.differing[0]


def test_a_pickle_of_detectron2_holds_arrays_and_nothing_else(small: Dino, tmp_path: Path):
    theirs = {k: v.numpy() for k, v in as_detrex(export_official(small)).items()}
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": theirs, "__author__": "somebody"}, protocol=2))
    read = read_checkpoint(path)
    assert set(read) == set(theirs)
    assert all(np.array_equal(read[name].numpy(), theirs[name]) for name in theirs)
