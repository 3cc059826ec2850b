"""The picture grid and the curves."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from box_store import Boxes
from teach_detr.pictures import Column, picture_grid, training_curves


def test_the_grid_has_a_row_an_image_and_a_column_a_set(tmp_path: Path) -> None:
    files = []
    for i, size in enumerate(((120, 80), (60, 90))):
        Image.new("RGB", size, (90, 90, 90)).save(tmp_path / f"{i}.jpg")
        files.append((i, tmp_path / f"{i}.jpg"))
    boxes = Boxes([[10, 10, 60, 50]], [0.9], [1], 120, 80)  # type: ignore[arg-type]
    columns = [Column("truth", {0: boxes}), Column("nothing", {}), Column("low", {0: boxes}, 0.95)]
    path = picture_grid(tmp_path / "grid.png", files, columns, {1: "car"})
    with Image.open(path) as image:
        grid = np.asarray(image)
    assert grid.shape[1] == 6 + 3 * (256 + 6)
    # the first image is wider than high: its row is only as high as it needs
    assert grid.shape[0] == 30 + (171 + 12) + (256 + 12)
    cells = [grid[36 : 36 + 171, 6 + i * 262 : 262 + i * 262] for i in range(3)]
    assert not np.array_equal(cells[0], cells[1])
    # a box below the column's floor is not drawn
    assert np.array_equal(cells[1], cells[2])


def test_curves_need_matplotlib_and_skip_what_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    records = [
        {"kind": "eval", "step": 0, "AP": 0.1},
        {"kind": "train", "step": 5, "loss": {"class": 1.0, "box": 0.5, "giou": 0.5}},
        {"kind": "train", "step": 6, "loss": {}},
        {"kind": "eval", "step": 10, "AP": None},
    ]
    path = training_curves(tmp_path / "c.png", {"one": records, "empty": []})
    assert path is not None
    with Image.open(path) as image:
        assert image.size[0] > 800
