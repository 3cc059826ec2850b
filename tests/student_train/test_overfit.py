"""They learn: every family's preset for scenes, on 16 drawn scenes until it knows them by heart.

Backbones start from the demo's weights, norms frozen, as real runs start from ImageNet; the rest of
DINO's weights that fit are taken too. TEACH_DETR_LONG=1 adds the families that take longest.
"""

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from student_train.config import resolve
from student_train.launch import train
from student_train.overrides import Layer
from student_train.presets import load_preset

LONG = pytest.mark.skipif(
    os.environ.get("TEACH_DETR_LONG") != "1", reason="takes minutes: set TEACH_DETR_LONG=1"
)
COMMON = {
    "augment.flip": 0.0,
    "augment.short_sides": "96",
    "augment.eval_short_side": 96,
    "optim.warmup_steps": 10,
    "eval_every": 0,
    "threads": 1,
    "device": "cpu",
    "model.norm": "frozen",
}
# one map and dense attention: a step is cheap, and many are needed
SINGLE_SCALE = {
    "batch_size": 8,
    "epochs": 120,
    "model.n_queries": 20,
    "model.decoder_layers": 2,
}
DEFORMABLE = {"batch_size": 4, "epochs": 50}
CASES = [
    pytest.param("dino-scenes", {"batch_size": 4, "epochs": 40}, id="dino"),
    pytest.param("conditional-scenes", SINGLE_SCALE, id="conditional"),
    pytest.param("dab-scenes", SINGLE_SCALE, id="dab", marks=LONG),
    pytest.param("dn-scenes", SINGLE_SCALE, id="dn", marks=LONG),
    pytest.param("deformable-scenes", DEFORMABLE, id="deformable", marks=LONG),
    pytest.param(
        "h-deformable-scenes",
        {**DEFORMABLE, "epochs": 40, "model.n_queries_one_to_many": 50},
        id="h-deformable",
        marks=LONG,
    ),
]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 scenes with all their labels."""
    from teach_detr.scenes import make_split

    root = tmp_path_factory.mktemp("scenes")
    make_split(root, "train2017", 16, 0, ("dusk",))
    return root


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "settings"), CASES)
def test_a_student_learns_sixteen_scenes_by_heart(
    preset: str, settings: dict[str, object], scenes: Path, tmp_path: Path
):
    from teach_detr.weights import weights_folder

    layer = {
        "data.root": scenes,
        "data.val_split": "train2017",
        "init": weights_folder() / "dino_start.safetensors",
        **COMMON,
        **settings,
    }
    resolved = resolve(load_preset(preset), arguments=[Layer("argument", layer)])
    evaluation = train(resolved, tmp_path / "run", Console(file=io.StringIO()))
    assert evaluation is not None
    ap50 = evaluation.metrics.values["AP50"]
    assert ap50 is not None
    assert ap50 > 0.9
