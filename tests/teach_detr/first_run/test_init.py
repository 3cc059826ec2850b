"""From a data set to a run.toml: what is proposed fits it, and `run` reads it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from box_store.forms.survey import SplitSurvey
from student_train.presets import load_preset
from teach_detr.cli import main
from teach_detr.first_run.proposal import LEAST_STEPS, Machine, propose
from teach_detr.first_run.words import proposals
from teach_detr.runs.run_config import read_run, student_settings, table

CPU, GPU = Machine(0, 0), Machine(1, 24 * 2**30)


def split(images: int, most: int = 10) -> SplitSurvey:
    return SplitSurvey(
        "train", "images", "labels", images, present=images, objects_per_image={"100%": most}
    )


@pytest.mark.parametrize("images", [1, 3, 50, 500, 50_000])
@pytest.mark.parametrize("machine", [CPU, GPU])
def test_a_schedule_fits_the_number_of_images(images: int, machine: Machine) -> None:
    found = propose(split(images), machine)
    config = student_settings(found.preset, table("t", found.settings)).config
    per_epoch = images // config.batch_size
    assert per_epoch >= 1
    assert found.steps == per_epoch * config.epochs
    wanted = LEAST_STEPS["gpu" if machine.gpus else "cpu"]
    assert found.steps >= wanted or config.epochs == 300
    assert config.optim.warmup_steps <= max(1, found.steps // 10)
    assert 5 <= config.epochs / config.eval_every <= 25
    if config.optim.schedule == "step":
        assert max(config.optim.drop_epochs) < config.epochs
    assert all(found.reasons[key] for key in found.settings)


def test_a_student_fits_the_machine_and_the_fullest_image() -> None:
    assert propose(split(500), CPU).preset == "dino-mobilenetv2"
    assert propose(split(500), GPU).preset == "rtdetrv2-r18"
    assert propose(split(50_000), GPU).preset == "dino-r50-4scale"
    crowded = propose(split(500, most=180), CPU)
    assert crowded.settings["model.n_queries"] == 300
    assert "180 objects" in crowded.reasons["model.n_queries"]
    assert "model.n_queries" not in propose(split(500, most=40), CPU).settings
    assert propose(split(500), CPU, "dino-micro").preset == "dino-micro"
    assert load_preset("dino-micro")


def test_words_that_are_one_thing_are_proposed() -> None:
    theirs = ["person", "pickup truck", "hat", "glove", "cat"]
    found = proposals(theirs, ["pedestrians", "truck", "hardhat", "Gloves", "kitten", "axe"])
    assert found == {
        "person": "pedestrians",
        "pickup truck": "truck",
        "glove": "Gloves",
        "cat": "kitten",
    }
    assert proposals(["bus", "glass"], ["bu", "glas"]) == {}


@pytest.fixture
def yolo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TEACH_DETR_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "set"
    rng = np.random.default_rng(0)
    for part, n in (("train", 8), ("val", 4)):
        for at in range(n):
            image, label = (
                root / kind / part / f"{at}.{end}"
                for kind, end in (("images", "jpg"), ("labels", "txt"))
            )
            for path in (image, label):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (96, 128, 3), np.uint8)).save(image)
            label.write_text(f"{at % 2} 0.5 0.5 0.4 0.5\n")
    names = "[pedestrian, 'a \"dog\"']"
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: {names}\n")
    return root


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_the_file_is_one_that_run_reads(
    yolo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my" / "run.toml"
    code, text, err = call(capsys, "init", yolo, "--out", out, "--run", tmp_path / "r")
    assert code == 0, err
    assert "teach-detr run" in text
    config = read_run(out, {"store.path": str(tmp_path)})
    assert (config.data.root, config.data.train_split, config.data.val_split) == (
        yolo, "train", "val",
    )  # fmt: skip
    assert config.baseline
    assert config.student.preset == "dino-mobilenetv2"
    code, _, err = call(capsys, "init", yolo, "--out", out)
    assert (code, "exists already" in err) == (2, True)
    code, text, _ = call(capsys, "init", f"{yolo},split=train", "--out", tmp_path / "b", "--json")
    assert json.loads(text)["val_split"] is None
    assert "--val 0.2" in (tmp_path / "b").read_text()
    code, _, err = call(capsys, "init", tmp_path / "none", "--out", tmp_path / "c")
    assert (code, "no folder or file" in err) == (1, True)
    code, _, err = call(capsys, "init", yolo, "--out", tmp_path / "c", "--preset", "dinno-micro")
    assert (code, "dino-micro" in err) == (2, True)


def test_a_teacher_comes_with_its_classes(
    yolo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], shared: Path
) -> None:
    pytest.importorskip("onnxruntime")
    model = shared / "teachers/yolox_nano.onnx"
    out = tmp_path / "run.toml"
    teacher = f"nano=onnx:{model},format=yolox,top_k=50,licence=Apache-2.0"
    code, said, err = call(capsys, "init", yolo, "--out", out, "--teacher", teacher)
    assert code == 0, err
    assert f"next      teach-detr run {out} --dry-run" in said
    assert "proposed  nano: person is pedestrian" in err
    tables = read_run(out).teachers["nano"]
    assert tables["map"] == {"person": "pedestrian", "dog": 'a "dog"'}
    assert (tables["top_k"], tables["licence"], tables["format"]) == ("50", "Apache-2.0", "yolox")
    text = (yolo / "data.yaml").read_text().replace("pedestrian", "axe").replace("dog", "owl")
    (yolo / "data.yaml").write_text(text)
    out.unlink()
    code, said, err = call(capsys, "init", yolo, "--out", out, "--teacher", teacher)
    assert code == 0
    assert f"next      a table [teachers.NAME] in {out}, then teach-detr run" in said
    assert "nano finds none of the classes" in err
    assert "nano" not in read_run(out, {"store.path": str(tmp_path)}).teachers
