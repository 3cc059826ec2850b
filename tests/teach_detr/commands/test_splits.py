"""A data set whose exporter counts every split from 0, in one store, with real processes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from teach_detr.cli import main
from tests.forked import Forked

pytestmark = pytest.mark.slow

SPLITS = {"train": 6, "valid": 4}
CORNER = {"train": (4, 6), "valid": (34, 20)}


def run(module: str, *words: object, expected: int = 0) -> str:
    """A command in a process of its own; what it says."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == expected, done.stderr
    return done.stdout if expected == 0 else done.stderr


def trained(*words: object, expected: int = 0) -> str:
    """What `student-train` in a process of its own says."""
    process = Forked("student_train.cli", [str(word) for word in words])
    said, _ = process.communicate()
    assert process.returncode == expected, said
    return said


def command(*words: object) -> None:
    """The same of `teach-detr` here: its start is most of its time."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 0


def truth(split: str) -> list[dict[str, Any]]:
    return [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [*CORNER[split], 24, 20], "area": 480}
        for i in range(SPLITS[split])
    ]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """As Roboflow exports frames of two videos: alike ids, names and sizes; and a store of both."""
    pytest.importorskip("onnx")
    from teacher_infer.bench.inputs import write_tiny_detector

    root = tmp_path_factory.mktemp("splits")
    data, store, model = root / "data", root / "store", root / "model"
    for split, n in SPLITS.items():
        (data / split).mkdir(parents=True)
        images = []
        for i in range(n):
            name = f"frame_{i:03d}.png"
            pixels = np.full((48, 64, 3), 200 if split == "train" else 60, np.uint8)
            Image.fromarray(pixels).save(data / split / name)
            images.append({"id": i, "file_name": name, "width": 64, "height": 48})
        categories = [{"id": 0, "name": "things"}, {"id": 1, "name": "person"}]
        document = {"images": images, "categories": categories, "annotations": truth(split)}
        (data / split / "_annotations.coco.json").write_text(json.dumps(document))
    model.mkdir()
    write_tiny_detector(model, ("person", "unicorn", "car"))
    words = f"onnx:{model}/detector.onnx,format=boxes,classes={model}/classes.txt,licence=MIT"
    options = ("--data", data, "--split", "train", "--split", "valid", "--store", store)
    run("teacher_infer.cli", "run", *options, "--local", "--teacher", f"tiny={words}")
    for split in SPLITS:
        results = root / f"{split}.json"
        rows = [{**row, "score": 0.9} for row in truth(split)]
        results.write_text(json.dumps(rows))
        listed = ("--data", data, "--split", split, "--results", results)
        run("teacher_infer.cli", "import", "--store", store, "--name", f"lab-{split}", *listed)
    return data, store


def test_both_are_labelled_and_run_once(places: tuple[Path, Path]) -> None:
    _, store = places
    sql = "SELECT split, count(*) n, round(avg(score), 2) sure FROM boxes WHERE teacher = 'tiny' "
    rows = json.loads(run("teach_detr.cli", "sql", store, sql + "GROUP BY 1 ORDER BY 1", "--json"))
    # the detector's score is the brightness of its image
    assert rows == [
        {"split": "train", "n": 6, "sure": 0.78},
        {"split": "valid", "n": 4, "sure": 0.24},
    ]
    said = run("teach_detr.cli", "sql", store, "SELECT image_id FROM boxes GROUP BY 1", expected=1)
    assert "image 0 is frame_000.png in train and frame_000.png in valid" in said
    assert "--split" in said


@pytest.mark.parametrize("split", list(SPLITS))
def test_each_split_is_judged_and_exported_by_itself(
    places: tuple[Path, Path], split: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, store = places
    command("teachers", store, "--data", data, "--split", split, "--json")
    found = json.loads(capsys.readouterr().out)
    scores = {row["teacher"]: (row["AP"], row["n_images"]) for row in found["teachers"]}
    assert scores[f"lab-{split}"] == (1.0, SPLITS[split])
    assert set(scores) == {f"lab-{split}", "tiny", "fused"}
    out = tmp_path / "out.json"
    words = ("--teacher", "tiny", "--split", split, "--out", out, "--score-floor", "0")
    command("export", store, "--format", "coco", *words)
    written = json.loads(out.read_text())
    assert [image["id"] for image in written["images"]] == list(range(SPLITS[split]))
    assert {round(row["score"], 1) for row in written["annotations"]} == {
        0.8 if split == "train" else 0.2
    }


def test_a_student_learns_from_its_own_split(places: tuple[Path, Path], tmp_path: Path) -> None:
    data, store = places
    words = ["train", "--preset", "dino-micro", "--data", data, "--store", store]
    words += ["--out", tmp_path / "run", "batch_size=2", "epochs=1", "device=cpu"]
    words += ["data.workers=0", "model.n_queries=8", "model.top_k=8", "teachers.choose=none"]
    said = trained(*words, "--teachers", "lab-train,tiny")
    assert "teacher lab-train: 6 boxes in 6 of 6 training images" in said
    assert "teacher tiny: 6 boxes in 6 of 6 training images" in said
    said = trained(*words, "--teachers", "lab-valid", "--overwrite", expected=1)
    assert "teacher lab-valid saw none of the 6 training images" in said


def test_sql_has_the_truth_of_both(
    places: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data, store = places
    sql = "SELECT teacher, split, outcome, count(*) n FROM matched(NULL, 0.5, 0.0) WHERE teacher "
    sql += "LIKE 'lab%' GROUP BY ALL ORDER BY ALL"
    command("sql", store, sql, "--data", data, "--split", "train", "--split", "valid", "--json")
    assert [tuple(row.values()) for row in json.loads(capsys.readouterr().out)] == [
        ("lab-train", "train", "hit", 6),
        ("lab-valid", "valid", "hit", 4),
    ]
    with pytest.raises(SystemExit) as ended:
        main(["sql", str(store), "FROM truth", "--split", "train", "--split", "valid"])
    assert ended.value.code == 2
    assert "--data SRC --split NAME" in capsys.readouterr().err
