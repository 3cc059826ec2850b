import argparse
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from student_train.errors import CheckpointError
from student_train.models.official import (
    detect_family,
    export_official,
    load_official,
    load_official_file,
    official_names,
    read_checkpoint,
)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    state = b.state_dict()
    return all(
        torch.equal(v, state[k])
        for k, v in a.state_dict().items()
        if not k.endswith("num_batches_tracked")
    )


@pytest.mark.parametrize("share", [True, False])
def test_round_trip(tiny, share: bool) -> None:
    first, second = tiny(share_heads=share), tiny(share_heads=share)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter += 1
    assert not same(first, second)
    report = load_official(second, export_official(first))
    assert same(first, second)
    assert report.complete
    # three layers, two places: six names where one tensor is shared, else two
    heads = 2 + 6
    assert report.copies == (heads * 5 if share else heads * 3)


def test_names_are_official(tiny) -> None:
    state = export_official(tiny())
    for key in (
        "transformer.level_embed",
        "transformer.encoder.layers.0.self_attn.sampling_offsets.weight",
        "transformer.decoder.ref_point_head.layers.1.bias",
        "transformer.decoder.bbox_embed.2.layers.0.weight",
        "class_embed.1.bias",
        "transformer.enc_out_class_embed.weight",
        "transformer.tgt_embed.weight",
        "label_enc.weight",
        "input_proj.3.0.weight",
    ):
        assert key in state, key
    assert detect_family(state) == "dino"


def test_missing_and_unexpected_are_named_and_nothing_is_loaded(tiny) -> None:
    student = tiny()
    before = {k: v.clone() for k, v in student.state_dict().items()}
    state = export_official(tiny())
    state["transformer.tgt_embed.weight"] = state["transformer.tgt_embed.weight"] + 1
    del state["label_enc.weight"]
    state["transformer.strange.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        load_official(student, state)
    assert "label_enc.weight" in str(caught.value)
    assert "transformer.strange.weight" in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"n_queries": 9}, "model.n_queries"),
        ({"n_classes": 5}, "model.n_classes"),
        ({"n_levels": 3}, "model.n_levels"),
    ],
)
def test_misfits_come_with_advice(tiny, changes: dict, advice: str) -> None:
    with pytest.raises(CheckpointError, match=advice):
        load_official(tiny(), export_official(tiny(**changes)))


def test_heads_of_their_own_are_not_merged_silently(tiny) -> None:
    student = tiny(share_heads=False)
    with pytest.raises(CheckpointError, match="share_heads=false"):
        load_official(tiny(), export_official(student))
    assert load_official(tiny(share_heads=False), export_official(student)).complete


def test_fine_tuning_other_classes(tiny) -> None:
    source, student = tiny(n_classes=5), tiny()
    report = load_official(student, export_official(source), strict=False)
    assert any("label_enc" in name for name in report.misshapen)
    assert not report.missing
    assert torch.equal(student.level_embedding, source.level_embedding)
    assert student.heads.classes[0].bias.shape == (7,)


def test_integer_buffers_are_ignored(tiny) -> None:
    state = export_official(tiny())
    state["backbone.0.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(4, 4).long()
    assert len(load_official(tiny(), state).ignored) == 1


def test_official_file_with_its_settings(tiny, tmp_path: Path) -> None:
    student, path = tiny(), tmp_path / "checkpoint0011.pth"
    content = {
        "model": {f"module.{k}": v for k, v in export_official(student).items()},
        "args": argparse.Namespace(lr=1e-4, backbone="resnet50"),
        "epoch": 11,
    }
    torch.save(content, path)
    other = tiny()
    with torch.no_grad():
        other.level_embedding += 1
    load_official_file(other, path)
    assert same(student, other)


def test_safetensors(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors")
    assert read_checkpoint(tmp_path / "w.safetensors")["a"].tolist() == [1, 1]


class Bomb:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, capsys) -> None:
    path = tmp_path / "bomb.pth"
    torch.save({"model": {"a": torch.ones(1)}, "extra": Bomb()}, path)
    with pytest.raises(CheckpointError, match="refused"):
        read_checkpoint(path)
    with (tmp_path / "bare.pth").open("wb") as file:
        pickle.dump(Bomb(), file)
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "bare.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.pth", None, "no weights file"),
        ("text.pth", b"hello", r"refused|readable"),
        ("empty.pth", b"", "readable"),
        ("text.safetensors", b"hello", "readable"),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / name)


def test_truncated_file(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1000)}, tmp_path / "a.pth")
    data = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "cut.pth")


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.ones(1)], {}])
def test_files_without_weights(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="holds"):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("keys", "family"),
    [
        (("label_enc.weight", "refpoint_embed.weight"), "dn_detr"),
        (("transformer.pos_trans.weight",), "deformable_detr"),
        (("backbone.det_token", "backbone.cls_token"), "yolos"),
    ],
)
def test_families(keys: tuple[str, ...], family: str) -> None:
    assert detect_family(dict.fromkeys(keys, torch.ones(1))) == family


def test_unknown_family() -> None:
    with pytest.raises(CheckpointError, match="no known detector"):
        detect_family({"conv1.weight": torch.ones(1)})


def test_no_official_names_for_parameters_that_only_we_have(tiny: Any) -> None:
    with pytest.raises(CheckpointError, match=r"Dino has no official name for nowhere\.weight"):
        official_names(tiny(), "nowhere.weight")
