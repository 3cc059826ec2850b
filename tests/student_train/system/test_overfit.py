"""They learn: presets for scenes, on 16 drawn scenes until they know them by heart.

Backbones start from the demo's weights, norms frozen, as real runs start from ImageNet; the rest of
that DINO's weights that fits is taken too. YOLOS and ViDT, which have other backbones, start at
random. Those of the four that have a nearer relative here run with TEACH_DETR_LONG=1.
"""

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from student_train.config import resolve
from student_train.presets import load_preset
from student_train.settings.origin import ARGUMENT
from student_train.settings.overrides import Layer
from student_train.training.launch import train
from teach_detr.scenes.painting import make_split
from teach_detr.toy_teachers.shipped import weights_folder

LONG = pytest.mark.skipif(
    not os.environ.get("TEACH_DETR_LONG"), reason="one more minute: TEACH_DETR_LONG=1 runs it"
)
COMMON = {
    "augment.flip": 0.0,
    "augment.short_sides": "96",
    "augment.eval_short_side": 96,
    "optim.warmup_steps": 10,
    "eval_every": 0,
    "threads": 1,
    "device": "cpu",
}
WARM = {"init": weights_folder() / "dino_start.safetensors", "model.norm": "frozen"}
# anchors with a dense attention need many steps: cheap ones, on the map that the frozen backbone
# learned, with cells and anchors encoded alike
ANCHORS = {
    **WARM,
    "batch_size": 8,
    "model.n_queries": 20,
    "model.decoder_layers": 2,
    "model.output_stride": 32,
    "model.temperature": 10000.0,
    "loss.class_loss": 2.0,
    "optim.lr": 2e-3,
    "optim.backbone_lr": 0.0,
}
HYBRID = {
    **WARM,
    "batch_size": 4,
    "augment.squares": "96",
    "augment.eval_square": 96,
    "model.encoder_dim": 64,
    "model.dim": 64,
    "model.n_heads": 2,
}
WINDOWED = {
    "batch_size": 8,
    "epochs": 170,
    "augment.squares": "128",
    "augment.eval_square": 128,
    "model.n_queries": 20,
    "model.decoder_layers": 2,
    "model.n_groups": 4,
    "optim.lr": 2e-3,
    "optim.backbone_lr": 2e-3,
    "optim.weight_decay": 0.0,
}
CASES = [
    pytest.param("dino-scenes", {**WARM, "batch_size": 4, "epochs": 40}, id="dino"),
    pytest.param("deformable-scenes", {**WARM, "batch_size": 4, "epochs": 50}, id="deformable"),
    pytest.param(
        "h-deformable-scenes",
        {**WARM, "batch_size": 4, "epochs": 70, "model.n_queries_one_to_many": 50},
        id="h-deformable",
        marks=LONG,
    ),
    pytest.param("rtdetrv2-scenes", {**HYBRID, "epochs": 64}, id="rtdetrv2"),
    pytest.param("d-fine-scenes", {**HYBRID, "epochs": 80}, id="d-fine"),
    # one map and dense attention: a step is cheap, and many are needed
    pytest.param(
        "conditional-scenes",
        {**WARM, "batch_size": 8, "epochs": 120, "model.n_queries": 20, "model.decoder_layers": 2},
        id="conditional",
        marks=LONG,
    ),
    pytest.param("dab-scenes", {**ANCHORS, "epochs": 200}, id="dab", marks=LONG),
    pytest.param("dn-scenes", {**ANCHORS, "epochs": 200}, id="dn"),
    # from random weights: large patches for many cheap steps, a table of positions after each block
    pytest.param(
        "yolos-scenes",
        {
            "batch_size": 8,
            "epochs": 240,
            "model.backbone": "deit_test_patch16_224",
            "model.table_size": "96,156",
            "model.mid_table_size": "96,156",
            "model.n_queries": 20,
            "optim.lr": 3e-3,
            "optim.backbone_lr": 3e-3,
            "optim.weight_decay": 0.0,
        },
        id="yolos",
    ),
    # as well; windows that fit small maps, and nothing wider than it must be
    pytest.param(
        "vidt-scenes",
        {
            "batch_size": 8,
            "epochs": 150,
            "augment.short_sides": "64",
            "augment.eval_short_side": 64,
            "model.backbone": "swin_test_patch4_window4_128",
            "model.n_queries": 20,
            "model.dim": 64,
            "model.n_heads": 2,
            "model.ffn_dim": 128,
            "model.decoder_layers": 2,
            "optim.lr": 2e-3,
            "optim.backbone_lr": 2e-3,
            "optim.weight_decay": 0.0,
        },
        id="vidt",
        marks=LONG,
    ),
    # plain ViTs from random weights too; squares, and few groups
    pytest.param("lw-detr-scenes", {**WINDOWED, "epochs": 60}, id="lw-detr"),
    pytest.param("rf-detr-scenes", WINDOWED, id="rf-detr", marks=LONG),
]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 scenes with all their labels."""
    root = tmp_path_factory.mktemp("scenes")
    make_split(root, "train2017", 16, 0, ("dusk",))
    return root


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "settings"), CASES)
def test_a_student_learns_sixteen_scenes_by_heart(
    preset: str, settings: dict[str, object], scenes: Path, tmp_path: Path
):
    layer = {
        "data.root": scenes,
        "data.val_split": "train2017",
        **COMMON,
        **settings,
    }
    resolved = resolve(load_preset(preset), arguments=[Layer(ARGUMENT, layer)])
    evaluation = train(resolved, tmp_path / "run", Console(file=io.StringIO()))
    assert evaluation is not None
    ap50 = evaluation.metrics.values["AP50"]
    assert ap50 is not None
    assert ap50 > 0.9
