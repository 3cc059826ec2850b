"""Students whose queries are tokens of the backbone, from training with teachers to detections."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from student_train.config import resolve
from student_train.errors import ConfigError
from student_train.evaluation.of_run import evaluate_run
from student_train.predictor import load_predictor
from student_train.presets import load_preset
from student_train.settings.origin import ARGUMENT
from student_train.settings.overrides import Layer
from student_train.training.launch import train


@pytest.mark.parametrize(("preset", "n_layers"), [("yolos-micro", 1), ("vidt-micro", 3)])
def test_from_teachers_to_detections(
    toy: Path, store: Path, tmp_path: Path, preset: str, n_layers: int
) -> None:
    settings = {"data.root": str(toy), "teachers.store": str(store), "steps": "2", "log_every": "1"}
    resolved = resolve(load_preset(preset), arguments=[Layer(ARGUMENT, settings)])
    run = tmp_path / "run"
    train(resolved, run, Console(file=io.StringIO()), command=["test"])

    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    parts = next(record["parts"] for record in records if record["kind"] == "train")
    for source in ("truth", "teacher:sharp", "teacher:late"):
        layers = {name for name in parts if name.startswith(f"{source}/class/")}
        assert layers == {f"{source}/class/{layer}" for layer in range(n_layers)}
    rates = next(record["lr"] for record in records if record["kind"] == "train")
    assert set(rates) == {"head", "backbone", "backbone_no_decay"}

    predictor = load_predictor(run, "cpu")
    image = np.asarray(Image.open(toy / "val2017" / "001.png").convert("RGB"))
    (found,) = predictor.predict([image])
    assert 0 < len(found) <= 20
    # three categories and no other logit, whatever no-object says
    assert set(found.class_ids.tolist()) <= {0, 1, 2}
    assert (np.diff(found.scores) <= 0).all()
    assert found.scores.max() <= 1
    assert evaluate_run(run, None, None, "best", "cpu", None, {}) is not None


@pytest.mark.parametrize(
    ("preset", "form", "own"),
    [("yolos-micro", "focal", "softmax"), ("vidt-micro", "softmax", "focal")],
)
def test_a_loss_of_another_form_is_refused(preset: str, form: str, own: str) -> None:
    layer = Layer(ARGUMENT, {"loss.classification": form})
    with pytest.raises(ConfigError, match=f"classification={own}"):
        resolve(load_preset(preset), arguments=[layer])
