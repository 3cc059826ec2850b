"""The demo's data set: exact, repeatable, in COCO's layout, and worth learning from."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from box_store import load_coco
from box_store.errors import UsageError
from teach_detr.scenes.painting import STYLES, VAL_FIRST_ID, Painter, make_scenes, make_split
from teach_detr.scenes.sprites import TOYS


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter(["dusk"], seed=3)


def scenes(painter: Painter, n: int):
    return [painter.paint(np.random.default_rng([3, i])) for i in range(n)]


def test_a_data_set_in_cocos_layout_that_the_reader_accepts(tmp_path: Path) -> None:
    make_scenes(tmp_path, n_train=4, n_val=2, seed=1)
    train = load_coco(tmp_path / "annotations" / "instances_train2017.json")
    val = load_coco(tmp_path / "annotations" / "instances_val2017.json")
    assert len(train.images) == 4
    assert [image.id for image in val.images] == [VAL_FIRST_ID, VAL_FIRST_ID + 1]
    assert not set(train.image_ids) & set(val.image_ids)
    assert train.categories == val.categories
    assert train.categories.names == tuple(toy.name for toy in TOYS)
    for split, coco in (("train2017", train), ("val2017", val)):
        assert not coco.problems
        for image in coco.images:
            with Image.open(tmp_path / split / image.file_name) as file:
                assert file.size == (image.width, image.height)
                assert file.mode == "RGB"


def test_the_same_seed_gives_the_same_bytes_and_a_longer_split_begins_with_a_shorter(
    tmp_path: Path,
) -> None:
    for name, n in (("a", 2), ("b", 3)):
        make_split(tmp_path / name, "train", n, 5, ["day"], thin=0.3)
    first, longer = (json.loads(p.read_text()) for p in sorted(tmp_path.glob("*/annotations/*")))
    assert first["images"] == longer["images"][:2]
    assert first["annotations"] == longer["annotations"][: len(first["annotations"])]
    for name in ("000001.jpg", "000002.jpg"):
        pictures = [(tmp_path / folder / "train" / name).read_bytes() for folder in ("a", "b")]
        assert pictures[0] == pictures[1]


def test_thinning_withholds_labels_and_changes_nothing_else(tmp_path: Path) -> None:
    full = make_split(tmp_path / "full", "train", 60, 2, ["dusk"])
    thin = make_split(tmp_path / "thin", "train", 60, 2, ["dusk"], thin=0.33)
    whole, part = load_coco(full), load_coco(thin)
    assert whole.images == part.images
    assert 0.23 < 1 - part.n_boxes / whole.n_boxes < 0.43
    for image_id in part.image_ids:
        boxes = whole.annotations_of(image_id).boxes_xywh.tolist()
        assert all(box in boxes for box in part.annotations_of(image_id).boxes_xywh.tolist())
    picture = "train/000001.jpg"
    one, other = (tmp_path / name / picture for name in ("full", "thin"))
    assert one.read_bytes() == other.read_bytes()


def test_boxes_are_tight_lie_inside_and_come_in_all_sizes(painter: Painter) -> None:
    drawn = scenes(painter, 120)
    areas = []
    for scene in drawn:
        height, width = scene.pixels.shape[:2]
        boxes = scene.boxes_xyxy
        assert (boxes >= 0).all()
        assert (boxes[:, [0, 2]] <= width).all()
        assert (boxes[:, [1, 3]] <= height).all()
        sides = boxes[:, 2:] - boxes[:, :2]
        assert (sides > 0).all()
        areas += sides.prod(1).tolist()
    small, large = np.mean(np.array(areas) < 32**2), np.mean(np.array(areas) > 96**2)
    assert 0.1 < small < 0.5
    assert 0.01 < large < 0.2
    assert set(np.concatenate([scene.toys for scene in drawn])) == set(range(len(TOYS)))
    assert sum(scene.pixels.shape[0] != scene.pixels.shape[1] for scene in drawn) > 60


def test_a_box_holds_what_differs_from_the_ground(painter: Painter) -> None:
    """Pixels inside boxes vary more than those outside: boxes are where the toys are."""
    inside, outside = [], []
    for scene in scenes(painter, 30):
        mask = np.zeros(scene.pixels.shape[:2], bool)
        for x0, y0, x1, y1 in scene.boxes_xyxy:
            mask[y0:y1, x0:x1] = True
        if mask.any() and not mask.all():
            inside.append(scene.pixels[mask].std(0).mean())
            outside.append(scene.pixels[~mask].std(0).mean())
    assert np.mean(inside) > 1.5 * np.mean(outside)


def test_styles_are_different_domains() -> None:
    brightness = {
        style: np.mean([scene.pixels.mean() for scene in scenes(Painter([style], 1), 15)])
        for style in STYLES
    }
    assert brightness["day"] > 1.5 * brightness["dusk"]


def test_unknown_style_and_impossible_thinning_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown style.*'dask'.*Did you mean 'dusk'"):
        Painter(["dask"], 0)
    with pytest.raises(UsageError, match=r"0 <= thin < 1, got 1\.5"):
        make_split(tmp_path, "train", 1, 0, ["dusk"], thin=1.5)


def test_an_interrupted_split_has_no_annotations(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_split(tmp_path, "train", 4, 0, ["dusk"], progress=stop)
    assert not list(tmp_path.glob("annotations/*"))
