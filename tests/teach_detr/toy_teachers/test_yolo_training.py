"""The small YOLO: its label files, and the same weights from the same epochs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from teach_detr.scenes.painting import make_scenes
from teach_detr.toy_teachers.yolo_training import write_labels


def test_labels_are_relative_centres_with_classes_in_the_order_of_ids(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "annotations"
    folder.mkdir(parents=True)
    (folder / "instances_train.json").write_text(
        json.dumps(
            {
                "images": [
                    {"id": 4, "file_name": "a.jpg", "width": 200, "height": 100},
                    {"id": 5, "file_name": "b.jpg", "width": 10, "height": 10},
                ],
                "categories": [{"id": 90, "name": "z"}, {"id": 7, "name": "it's"}],
                "annotations": [
                    {"id": 1, "image_id": 4, "category_id": 90, "bbox": [20, 10, 40, 50]}
                ],
            }
        )
    )
    data = write_labels(tmp_path)
    assert (tmp_path / "labels" / "train" / "a.txt").read_text().split() == [
        *("1", "0.200000", "0.350000", "0.200000", "0.500000")
    ]
    assert (tmp_path / "labels" / "train" / "b.txt").read_text() == ""
    text = data.read_text()
    assert 'names: ["it\'s", "z"]' in text
    assert "train: images/train" in text


def train(folder: Path, out: Path, *length: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, as everything that imports the library."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "teach_detr.toy_teachers.yolo_training", str(folder), str(out)),
            *("--image-size", "64", *length),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def weights(file: Path) -> dict[str, bytes]:
    """Written by this very test, by the library's own pickle."""
    import torch

    model = torch.load(file, weights_only=False)["model"]
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def test_epochs_give_the_same_weights_every_time(tmp_path: Path) -> None:
    pytest.importorskip("ultralytics")
    make_scenes(tmp_path / "images", n_train=16, n_val=1, seed=1, world="crowd", styles=("day",))
    (tmp_path / "images" / "train2017").rename(tmp_path / "images" / "train")
    annotations = tmp_path / "images" / "annotations"
    (annotations / "instances_train2017.json").rename(annotations / "instances_train.json")
    for name in ("a.pt", "b.pt"):
        ended = train(tmp_path, tmp_path / name, "--epochs", "2")
        assert ended.returncode == 0, ended.stderr
        assert "yolo: epoch 2 of 2" in ended.stdout
    assert weights(tmp_path / "a.pt") == weights(tmp_path / "b.pt")


def test_it_is_told_how_long(tmp_path: Path) -> None:
    ended = train(tmp_path, tmp_path / "a.pt")
    assert ended.returncode == 2
    assert "--seconds --epochs is required" in ended.stderr
