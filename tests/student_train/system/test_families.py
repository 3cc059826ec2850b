"""Every family through the whole trainer, at the size of its preset for tests."""

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from student_train.config import resolve
from student_train.models import FAMILIES, build_student
from student_train.presets import all_presets, load_preset
from student_train.runs.checkpoint import load_weights
from student_train.runs.metrics import read_metrics
from student_train.settings.origin import ARGUMENT
from student_train.settings.overrides import Layer
from student_train.training.launch import train

SMALLEST = {
    load_preset(name).model.family: name
    for name, each in all_presets().items()
    if each.use == "tests"
}
DEFAULTS = {"steps": 1, "log_every": 1, "eval_every": 0, "threads": 1, "seed": 3}
each_family = pytest.mark.parametrize("family", FAMILIES)
TWO_STAGES = {"deformable_detr", "h_detr", "dino", "rtdetr_v2", "lw_detr", "rf_detr", "d_fine"}
DENOISING = {"dn_detr", "dino", "rtdetr_v2", "d_fine"}


def run(family: str, data: Path, out: Path, **settings: object):
    """Train for a step; the record of it, and the evaluation."""
    values = {key.replace("__", "."): value for key, value in settings.items()}
    layer = Layer(ARGUMENT, {"data.root": data, **DEFAULTS, **values})
    resolved = resolve(load_preset(SMALLEST[family]), arguments=[layer])
    evaluation = train(resolved, out, Console(file=io.StringIO()))
    records = [row for row in read_metrics(out / "metrics.jsonl") if row["kind"] == "train"]
    return records[0], evaluation


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_weights(out / "checkpoints" / "best.safetensors")[0]


@each_family
def test_teachers_in_parallel_supervise_every_prediction(
    family: str, toy: Path, store: Path, tmp_path: Path
):
    record, evaluation = run(family, toy, tmp_path / "run", teachers__store=store)
    # the fewest layers a family has here: two of a decoder, ViDT's tokens before them, YOLOS' one
    n_layers = {"yolos": 1, "vidt": 3}.get(family, 2)
    places = {*map(str, range(n_layers)), *({"proposals"} if family in TWO_STAGES else set())}
    places |= {"initial"} if family == "d_fine" else set()
    for teacher in ("sharp", "late"):
        parts = [key for key in record["parts"] if key.startswith(f"teacher:{teacher}/")]
        assert {key.rsplit("/", 1)[1] for key in parts} == places
    assert record["loss"]["teacher:sharp"] > 0
    assert ("denoising" in record["loss"]) == (family in DENOISING)
    assert sum(v for k, v in record["loss"].items() if k != "total") == pytest.approx(
        record["loss"]["total"], rel=1e-4
    )
    assert evaluation is not None
    assert evaluation.metrics.n_images == 4


@each_family
def test_teachers_can_be_fused(family: str, toy: Path, store: Path, tmp_path: Path):
    record, _ = run(
        family, toy, tmp_path / "run", teachers__store=store, teachers__combine="fused",
        data__val_split="none",
    )  # fmt: skip
    assert record["loss"]["teacher:fused"] > 0
    assert "teacher:sharp" not in record["loss"]


def test_one_to_many_queries_have_teachers_if_asked(toy: Path, store: Path, tmp_path: Path):
    record, _ = run(
        "h_detr", toy, tmp_path / "run", teachers__store=store, data__val_split="none",
        loss__teacher__groups="matching,one_to_many",
    )  # fmt: skip
    assert "teacher:sharp+one_to_many/class/1" in record["parts"]


@pytest.mark.slow
@each_family
def test_no_teachers_is_the_same_to_the_bit_and_frozen_parts_are_frozen(
    family: str, toy: Path, store: Path, tmp_path: Path
):
    settings = {"data__val_split": "none", "optim__backbone_lr": 0}
    run(family, toy, tmp_path / "plain", **settings)
    run(family, toy, tmp_path / "none", teachers__store=store, teachers__names="none", **settings)
    first, second = weights(tmp_path / "plain"), weights(tmp_path / "none")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)

    torch.manual_seed(DEFAULTS["seed"])
    config = load_preset(SMALLEST[family]).model
    start = build_student(type(config)(**{**vars(config), "n_classes": 3}))
    parameters = dict(start.named_parameters())
    moved = [key for key, value in parameters.items() if not torch.equal(first[key], value)]
    assert moved
    assert not any(key.startswith("backbone.") for key in moved)
    still = {key for key in parameters if key not in moved and not key.startswith("backbone.")}
    # ViDT carries an embedding that the official code does not use, D-FINE constants
    untrained = {"vidt": {"level_embedding"}, "d_fine": {"decoder.up", "decoder.scale"}}
    assert still == untrained.get(family, set())
