"""They learn: presets for scenes, on 16 drawn scenes until they know them by heart.

Backbones start from the demo's weights, norms frozen, as real runs start from ImageNet; the rest of
that DINO's weights that fits is taken too.
"""

import io
from pathlib import Path

import pytest
from rich.console import Console

from student_train.config import resolve
from student_train.launch import train
from student_train.overrides import Layer
from student_train.presets import load_preset

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
CASES = [
    pytest.param("dino-scenes", {"batch_size": 4, "epochs": 40}, id="dino"),
    pytest.param("deformable-scenes", {"batch_size": 4, "epochs": 50}, id="deformable"),
    pytest.param(
        "h-deformable-scenes",
        {"batch_size": 4, "epochs": 70, "model.n_queries_one_to_many": 50},
        id="h-deformable",
    ),
    # one map and dense attention: a step is cheap, and many are needed
    pytest.param(
        "conditional-scenes",
        {"batch_size": 8, "epochs": 120, "model.n_queries": 20, "model.decoder_layers": 2},
        id="conditional",
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
