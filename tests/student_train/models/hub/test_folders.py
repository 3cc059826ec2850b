"""Folders of transformers, in and out: equal outputs, and sentences for what does not fit."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from student_train.errors import CheckpointError
from student_train.export.transformers_folder import export_folder
from student_train.models.hub.folder import read_hub_folder
from student_train.runs.importing import import_checkpoint
from student_train.runs.trained import load_student

transformers = pytest.importorskip("transformers")

LABELS = {"id2label": {0: "cat", 1: "dog", 2: "hen"}, "label2id": {"cat": 0, "dog": 1, "hen": 2}}
SMALL = {
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "num_queries": 12,
}
TIMM = {"use_timm_backbone": True, "backbone": "resnet18", "use_pretrained_backbone": False}


def theirs(kind: str) -> nn.Module:
    """A model of transformers, every parameter moved off its start."""
    torch.manual_seed(0)
    if kind == "rtdetr_v2":
        backbone = transformers.RTDetrResNetConfig(
            depths=[2, 2, 2, 2], layer_type="basic", hidden_sizes=[64, 128, 256, 512],
            out_features=["stage2", "stage3", "stage4"],
        )  # fmt: skip
        model = transformers.RTDetrV2ForObjectDetection(
            transformers.RTDetrV2Config(
                backbone_config=backbone, encoder_in_channels=[128, 256, 512], decoder_layers=2,
                d_model=64, encoder_hidden_dim=64, decoder_in_channels=[64, 64, 64],
                encoder_ffn_dim=64, decoder_ffn_dim=64, num_queries=12, hidden_expansion=0.5,
                **LABELS,
            )
        )  # fmt: skip
    elif kind == "deformable_detr":
        config = {**SMALL, "two_stage": True, "with_box_refine": True, "d_model": 128}
        model = transformers.DeformableDetrForObjectDetection(
            transformers.DeformableDetrConfig(
                two_stage_num_proposals=12, **config, **TIMM, **LABELS
            )
        )
    elif kind == "conditional_detr":
        model = transformers.ConditionalDetrForObjectDetection(
            transformers.ConditionalDetrConfig(d_model=64, **SMALL, **TIMM, **LABELS)
        )
    elif kind == "dab_detr":
        model = transformers.DabDetrForObjectDetection(
            transformers.DabDetrConfig(hidden_size=64, **SMALL, **TIMM, **LABELS)
        )
    else:
        model = transformers.YolosForObjectDetection(
            transformers.YolosConfig(
                hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256,
                image_size=[96, 96], num_detection_tokens=10, layer_norm_eps=1e-6, **LABELS,
            )
        )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model.eval()


def outputs(mine: nn.Module, other: nn.Module, masked: bool) -> list[tuple[Any, Any]]:
    torch.manual_seed(1)
    images = torch.rand(2, 3, 96, 128)
    mask = torch.zeros(2, 96, 128, dtype=torch.bool)
    if masked:
        mask[1, :, 100:] = True
        mask[1, 70:] = True
    images = images.masked_fill(mask[:, None], 0)
    pixels = {"pixel_mask": (~mask).long()} if masked else {}
    with torch.no_grad():
        last, found = mine(images, mask).last, other(images, **pixels)
    return [(last.logits, found.logits), (last.boxes, found.pred_boxes)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hub") / "rtdetr"
    theirs("rtdetr_v2").save_pretrained(path)
    return path


@pytest.mark.parametrize(
    "family", ["rtdetr_v2", "deformable_detr", "conditional_detr", "dab_detr", "yolos"]
)
def test_a_folder_becomes_a_student_with_equal_outputs(family: str, tmp_path: Path) -> None:
    model = theirs(family)
    model.save_pretrained(tmp_path / "folder")
    done = import_checkpoint(tmp_path / "folder", tmp_path / "run")
    assert (done.family, done.source) == (family, "transformers")
    assert done.report.complete
    assert done.class_space.names == ("cat", "dog", "hen")
    student = load_student(tmp_path / "run", "best")
    for mine, other in outputs(student.model.eval(), model, family.endswith("_detr")):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_shards_and_pickles_are_the_same(folder: Path, tmp_path: Path) -> None:
    whole = read_hub_folder(folder)
    theirs("rtdetr_v2").save_pretrained(tmp_path / "shards", max_shard_size="10MB")
    assert not (tmp_path / "shards" / "model.safetensors").exists()
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    shutil.copy(folder / "config.json", pickled)
    torch.save(whole.weights, pickled / "pytorch_model.bin")
    for other in (read_hub_folder(tmp_path / "shards"), read_hub_folder(pickled)):
        assert other.weights.keys() == whole.weights.keys()
        assert all(torch.equal(other.weights[k], v) for k, v in whole.weights.items())


def broken(folder: Path, into: Path, how: str) -> Path:
    into.mkdir()
    settings = json.loads((folder / "config.json").read_text())
    weights = True
    if how == "empty":
        weights = False
    elif how == "other model":
        settings["model_type"] = "bert"
    elif how == "other norm":
        settings["normalize_before"] = True
    elif how == "gaps":
        settings["id2label"] = {"0": "a", "2": "b"}
    elif how in ("index", "outside"):
        weights = False
        shard = "../model.safetensors" if how == "outside" else "missing.safetensors"
        index = {"weight_map": {"x": shard}}
        (into / "model.safetensors.index.json").write_text(json.dumps(index))
    (into / "config.json").write_text("{" if how == "json" else json.dumps(settings))
    if weights:
        shutil.copy(folder / "model.safetensors", into)
    return into


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("empty", "no weights in .*: expected model.safetensors or pytorch_model.bin"),
        ("other model", "model_type 'bert', which is none of the students here: .*rt_detr_v2"),
        ("other norm", "normalize_before=True, but this student has False"),
        ("gaps", "id2label does not count from 0 without gaps"),
        ("json", "config.json is not readable JSON"),
        ("index", "no weights file at .*missing.safetensors"),
        ("outside", "names a shard outside its folder"),
    ],
)
def test_folders_that_cannot_be_used_are_named(
    folder: Path, tmp_path: Path, how: str, message: str
) -> None:
    path = broken(folder, tmp_path / "broken", how)
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(path, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_students_folder_is_loaded_by_transformers_with_equal_outputs(
    folder: Path, tmp_path: Path
) -> None:
    import_checkpoint(folder, tmp_path / "run")
    student = load_student(tmp_path / "run", "best")
    export_folder(student, tmp_path / "out")
    loaded, info = transformers.AutoModelForObjectDetection.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert loaded.config.id2label == {0: "cat", 1: "dog", 2: "hen"}
    for mine, other in outputs(student.model.eval(), loaded.eval(), False):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    image = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert image["do_normalize"] is False
    back = import_checkpoint(tmp_path / "out", tmp_path / "again")
    assert back.report.complete


@pytest.mark.parametrize("name", ["hub:nobody", "hub:a/b@", "hub:../x/y"])
def test_names_that_are_none_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected hub:ORG/NAME"):
        import_checkpoint(Path(name), tmp_path / "run")


def test_offline_says_which_file_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(
        CheckpointError, match=r"config.json and model.safetensors of https://.*a/b"
    ):
        import_checkpoint(Path("hub:a/b"), tmp_path / "run")


def test_a_kept_download_is_used_and_recorded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0" * 40
    repository = tmp_path / "cache" / "models--some--detector"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "cache")
    )
    done = import_checkpoint(Path("hub:some/detector"), tmp_path / "run")
    assert done.report.complete
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert f"some/detector@{commit}" in json.dumps(record)
