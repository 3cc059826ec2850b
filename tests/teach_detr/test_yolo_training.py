"""YOLO's label files; the training itself runs in the demo."""

import json
from pathlib import Path

from teach_detr.yolo_training import write_labels


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
