"""Official files to run folders and back: what is found out, used, refused and dropped."""

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from student_train.errors import CheckpointError, ConfigError, RunError
from student_train.export.official import export_checkpoint
from student_train.models import FAMILIES, build_student
from student_train.models.official import detect_family, export_official, load_official
from student_train.models.official.arguments import settings_from_arguments
from student_train.models.official.names import settings_beside, settings_from_shapes
from student_train.models.weights_file import read_checkpoint
from student_train.presets import all_presets, load_preset
from student_train.runs.importing import import_checkpoint
from student_train.runs.trained import load_student

MICRO = {
    load_preset(name).model.family: name
    for name, each in all_presets().items()
    if each.use == "tests"
}


def official_file(path: Path, family: str, **changes: object) -> dict[str, torch.Tensor]:
    """A checkpoint as the family's official code writes it, of the smallest student."""
    torch.manual_seed(0)
    student = build_student(replace(load_preset(MICRO[family]).model, **changes))
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    state = export_official(student)
    torch.save({"model": state, "epoch": 49, "args": argparse.Namespace(lr=1e-4)}, path)
    return state


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_comes_back_byte_by_byte(family: str, tmp_path: Path):
    state = official_file(tmp_path / "official.pth", family)
    done = import_checkpoint(tmp_path / "official.pth", tmp_path / "run", preset=MICRO[family])
    assert (done.family, done.report.complete) == (family, True)
    raw = FAMILIES[family].config().n_classes == 91
    assert done.class_space.kind == ("raw" if raw else "contiguous")
    assert len(done.class_space.categories) == 80
    student = load_student(tmp_path / "run")
    assert export_checkpoint(student, tmp_path / "back.pth") == len(state)
    back = read_checkpoint(tmp_path / "back.pth")
    assert list(back) == list(state)
    assert all(torch.equal(back[name], state[name]) for name in state)
    # what was exported brings its settings along
    again = import_checkpoint(tmp_path / "back.pth", tmp_path / "again")
    assert (again.source, again.config.model) == ("teach-detr", student.config.model)


def test_safetensors_hold_the_tensors_alone(tmp_path: Path):
    state = official_file(tmp_path / "official.pth", "dino")
    import_checkpoint(tmp_path / "official.pth", tmp_path / "run", preset="dino-micro")
    export_checkpoint(load_student(tmp_path / "run"), tmp_path / "back.safetensors")
    back = read_checkpoint(tmp_path / "back.safetensors")
    assert {name: tuple(value.shape) for name, value in back.items()} == {
        name: tuple(value.shape) for name, value in state.items()
    }


# counters and constants that official files hold beside parameters
REBUILT = re.compile(r"(num_batches_tracked|num_points_scale|anchors|valid_mask|_kp_active_mask)$")


@pytest.fixture(scope="module")
def golden_keys(request: pytest.FixtureRequest):
    """Names and shapes of every official model whose numbers are in the repository."""
    folder = Path(__file__).parents[2] / "golden"
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.keys.json"))]


def test_shapes_tell_the_student(golden_keys):
    from student_train.parity import family_parity

    assert len(golden_keys) >= 4
    for golden in golden_keys:
        state = {
            # heads are compared, of all others the shape is enough
            name: torch.zeros(shape, device="cpu" if "class_embed" in name else "meta")
            for name, shape, *_ in golden["keys"]
        }
        wanted = family_parity(golden["name"]).config(golden)  # type: ignore[union-attr]
        family = wanted.family
        if detect_family(state) != family:
            # H-DETR's names are Deformable DETR's
            assert (detect_family(state), family) == ("deformable_detr", "h_detr")
        found = settings_from_shapes(family, state)
        found |= settings_from_arguments(type(wanted), golden["config"])
        # the sets were made with other values of these than the files' authors'
        free = {"attention_backend", "drop_path", "dn_box_noise", "top_k", "n_queries"}
        differing = {
            key: (value, getattr(wanted, key))
            for key, value in found.items()
            if key not in free | {"share_heads"} and getattr(wanted, key) != value
        }
        assert differing == {}, golden["name"]
        assert "backbone" in found


def test_exported_names_are_the_official_ones(golden_keys):
    from student_train.parity import family_parity

    for golden in golden_keys:
        with torch.device("meta"):
            student = build_student(family_parity(golden["name"]).config(golden))
        ours = {name: list(value.shape) for name, value in export_official(student).items()}
        theirs = {name: shape for name, shape, *_ in golden["keys"] if not REBUILT.search(name)}
        assert ours == theirs, golden["name"]


def test_settings_beside_the_weights_are_read():
    arguments = {"dilation": True, "dropout": 0.1, "nheads": 4, "num_queries": 7, "pe": 1}
    assert settings_beside("conditional_detr", arguments, {}) == {
        "dropout": 0.1,
        "n_heads": 4,
        "n_queries": 7,
        "strides": (16,),
        "output_stride": 16,
    }


@pytest.mark.slow
def test_a_preset_is_found_and_what_was_assumed_is_said(tmp_path: Path):
    config = load_preset("conditional-r50-dc5").model
    torch.save({"model": export_official(build_student(config))}, tmp_path / "c.pth")
    done = import_checkpoint(tmp_path / "c.pth", tmp_path / "run")
    assert done.config.preset == "conditional-r50-dc5"
    assert done.config.model == config
    # dilation leaves no trace in any shape
    assert "model.output_stride=16" in done.assumed
    assert "model.n_queries=300" not in done.assumed
    origins = json.loads((tmp_path / "run" / "config.json").read_text())["origins"]
    assert origins["model.backbone"] == "shapes in c.pth"


def test_a_file_of_another_family_is_refused(tmp_path: Path):
    official_file(tmp_path / "c.pth", "conditional_detr")
    with pytest.raises(CheckpointError, match="holds a conditional_detr, not a yolos"):
        import_checkpoint(tmp_path / "c.pth", tmp_path / "run", family="yolos")
    with pytest.raises(ConfigError, match="no family of students is named 'yolo'"):
        import_checkpoint(tmp_path / "c.pth", tmp_path / "run", family="yolo")
    with pytest.raises(CheckpointError, match="holds a conditional_detr, not a dino"):
        import_checkpoint(tmp_path / "c.pth", tmp_path / "run", preset="dino-micro")
    assert not (tmp_path / "run").exists()


def test_half_a_match_is_refused_unless_asked(tmp_path: Path):
    state = official_file(tmp_path / "c.pth", "conditional_detr")
    del state["transformer.decoder.norm.weight"]
    state["transformer.strange"] = torch.zeros(1)
    torch.save({"model": state}, tmp_path / "half.pth")
    with pytest.raises(CheckpointError, match=r"decoder\.norm\.weight.*transformer\.strange"):
        import_checkpoint(tmp_path / "half.pth", tmp_path / "run", preset="conditional-micro")
    assert not (tmp_path / "run").exists()
    done = import_checkpoint(
        tmp_path / "half.pth", tmp_path / "run", preset="conditional-micro", partial=True
    )
    told = done.to_json()
    assert told["missing"] == ["transformer.decoder.norm.weight"]
    assert told["unused"] == ["transformer.strange"]
    assert len(told["used"]) == len(state) - 1


def test_other_classes_keep_what_fits_and_say_what_was_dropped(tmp_path: Path, toy: Path):
    state = official_file(tmp_path / "d.pth", "dn_detr")
    done = import_checkpoint(
        tmp_path / "d.pth",
        tmp_path / "run",
        preset="dn-micro",
        annotations=toy / "annotations" / "instances_train2017.json",
    )
    assert done.config.model.n_classes == 3
    assert done.class_space.categories.names == ("red", "green", "blue")
    dropped = sorted(name.split(" ")[0] for name in done.report.misshapen)
    assert dropped == ["class_embed.bias", "class_embed.weight", "label_enc.weight"]
    model = load_student(tmp_path / "run").model
    kept = export_official(model)
    assert kept["class_embed.weight"].shape[0] == 3
    assert torch.equal(kept["refpoint_embed.weight"], state["refpoint_embed.weight"])


def test_classes_that_nobody_names_are_asked_for(tmp_path: Path):
    official_file(tmp_path / "c.pth", "conditional_detr", n_classes=7)
    with pytest.raises(ConfigError, match=r"has 7 classes.*91 or 80.*--annotations"):
        import_checkpoint(tmp_path / "c.pth", tmp_path / "run", preset="conditional-micro")


def test_a_run_is_not_replaced_unasked(tmp_path: Path):
    official_file(tmp_path / "c.pth", "conditional_detr")
    for overwrite in (False, True):
        import_checkpoint(
            tmp_path / "c.pth", tmp_path / "run", preset="conditional-micro", overwrite=overwrite
        )
    with pytest.raises(RunError, match="--overwrite"):
        import_checkpoint(tmp_path / "c.pth", tmp_path / "run", preset="conditional-micro")


def test_a_truncated_file_is_a_sentence(tmp_path: Path):
    official_file(tmp_path / "c.pth", "conditional_detr")
    data = (tmp_path / "c.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="readable"):
        import_checkpoint(tmp_path / "cut.pth", tmp_path / "run")


def test_initial_weights_may_be_official(tmp_path: Path):
    state = official_file(tmp_path / "c.pth", "dino")
    other = build_student(load_preset("dino-micro").model)
    assert load_official(other, state).complete


def test_a_file_of_d_fine_may_be_one_of_deim_and_says_so(tmp_path: Path):
    official_file(tmp_path / "official.pth", "d_fine", backbone="hgnetv2_b0", n_heads=8)
    heads = {"model.n_heads": "8"}
    done = import_checkpoint(tmp_path / "official.pth", tmp_path / "run", overrides=heads)
    assert "model.activation=relu" in done.assumed
    (warning,) = done.warnings
    assert "DEIM" in warning
    assert "model.activation=silu" in warning
    assert done.to_json()["warnings"] == [warning]
    told = import_checkpoint(
        tmp_path / "official.pth",
        tmp_path / "deim",
        overrides={**heads, "model.activation": "silu"},
    )
    assert told.config.model.activation == "silu"  # type: ignore[attr-defined]
    assert not any("activation" in each for each in told.assumed)
    assert not told.warnings


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_file_of_others_is_a_student_without_an_import(tmp_path: Path, ending: str):
    state = official_file(tmp_path / "w.pth", "dino")
    path = tmp_path / f"w{ending}"
    if ending == ".safetensors":
        save_file({name: value.clone() for name, value in state.items()}, path)
    student = load_student(path)
    done = import_checkpoint(path, tmp_path / "run")
    assert student.origin == f"{path} (official names)"
    assert student.class_space == done.class_space
    found, imported = student.model.state_dict(), load_student(done.run).model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in imported.items())
