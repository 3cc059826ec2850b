"""A sample: the image, its ground truth and what each teacher saw in it, in one frame."""

import gc
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from box_store.categories import ClassSpace
from box_store.coco import annotations as coco_annotations
from box_store.errors import DataError
from box_store.selection.selecting import Selection
from student_train.config import AugmentConfig
from student_train.data.coco import CocoDetection, Key, Sample
from student_train.data.transforms import EvalTransform, TrainTransform

# leaves 60 x 40 images as they are
PLAIN = EvalTransform(AugmentConfig(eval_short_side=40, eval_long_side=60))

SMALL = AugmentConfig(
    short_sides=(32, 48), long_side=96, crop_resize=(40, 60), crop_sides=(24, 48), crop=0.5
)


def only_sample(dataset: CocoDetection, key: Key | int = 0) -> Sample:
    loaded = dataset[key]
    assert loaded.problems == ()
    assert loaded.sample is not None
    return loaded.sample


def test_ground_truth(folder) -> None:
    folder.add("a.png", boxes=[(6, 4, 12, 8)])
    folder.annotate(100, [(0, 0, 60, 40)], category=7)
    sample = only_sample(CocoDetection(folder.root, folder.coco, folder.space(), PLAIN))
    assert sample.image.shape == (3, 40, 60)
    assert sample.image_id == 100
    assert sample.original_size == (40, 60)
    assert sample.truth.labels.tolist() == [3, 7]
    assert sample.truth.scores.tolist() == [1, 1]
    expected = torch.tensor([[0.2, 0.2, 0.2, 0.2], [0.5, 0.5, 1, 1]])
    torch.testing.assert_close(sample.truth.boxes, expected)
    assert sample.teachers == {}


def test_contiguous_class_space(folder) -> None:
    folder.add("a.png", boxes=[(6, 4, 12, 8)], category=7)
    dataset = CocoDetection(folder.root, folder.coco, folder.space("contiguous"), PLAIN)
    assert only_sample(dataset).truth.labels.tolist() == [1]


def test_crowds_are_no_targets(folder) -> None:
    folder.add("a.png", boxes=[(6, 4, 12, 8)])
    folder.annotate(100, [(0, 0, 30, 30)], crowd=True)
    dataset = CocoDetection(folder.root, folder.coco, folder.space(), PLAIN)
    assert dataset.n_boxes == 1
    assert len(only_sample(dataset).truth) == 1


def test_image_without_annotations(folder) -> None:
    folder.add("a.png")
    folder.add("b.png", boxes=[(6, 4, 12, 8)])
    dataset = CocoDetection(folder.root, folder.coco, folder.space(), PLAIN)
    assert len(dataset) == 2
    truth = only_sample(dataset).truth
    assert truth.labels.shape == (0,)
    assert truth.boxes.shape == (0, 4)
    assert len(only_sample(dataset, 1).truth) == 1


def test_teachers(folder, make_selection: Callable[..., Selection]) -> None:
    for name in "abc":
        folder.add(f"{name}.png", boxes=[(6, 4, 12, 8)])
    size = (60, 40)
    selection = make_selection(
        sure={100: (size, [(6, 4, 18, 12, 0.9, 7), (-6, 0, 6, 40, 0.25, 3)]), 101: (size, [])},
        other={102: (size, [(0, 0, 30, 20, 0.5, 3)])},
    )
    dataset = CocoDetection(folder.root, folder.coco, folder.space(), PLAIN, selection=selection)
    first, second, third = (only_sample(dataset, index) for index in range(3))
    sure = first.teachers["sure"]
    assert sure is not None
    assert sure.labels.tolist() == [7, 3]
    torch.testing.assert_close(sure.scores, torch.tensor([0.9, 0.25]))
    expected = torch.tensor([[0.2, 0.2, 0.2, 0.2], [0.05, 0.5, 0.1, 1.0]])
    torch.testing.assert_close(sure.boxes, expected)
    assert first.teachers["other"] is None
    # it looked at the second image and saw nothing, and never looked at the third
    nothing = second.teachers["sure"]
    assert nothing is not None
    assert len(nothing) == 0
    assert not nothing.had_boxes
    assert third.teachers["sure"] is None
    assert third.teachers["other"] is not None
    # ground truth is not disturbed by them
    torch.testing.assert_close(first.truth.boxes, torch.tensor([[0.2, 0.2, 0.2, 0.2]]))


def test_some_teachers_of_a_selection(folder, make_selection: Callable[..., Selection]) -> None:
    folder.add("a.png")
    selection = make_selection(a={100: ((60, 40), [])}, b={100: ((60, 40), [])})
    dataset = CocoDetection(
        folder.root, folder.coco, folder.space(), PLAIN, selection=selection, teachers=["b"]
    )
    assert list(only_sample(dataset).teachers) == ["b"]


def test_teacher_boxes_move_with_the_image(
    folder, make_selection: Callable[..., Selection]
) -> None:
    # the teacher saw exactly what is annotated, so both sets must stay the same
    folder.add("a.png", boxes=[(6, 4, 12, 8), (30, 20, 25, 15)])
    boxes = [(6, 4, 18, 12, 0.9, 3), (30, 20, 55, 35, 0.8, 3)]
    selection = make_selection(t={100: ((60, 40), boxes)})
    dataset = CocoDetection(
        folder.root, folder.coco, folder.space(), TrainTransform(SMALL), selection=selection
    )
    counts = set()
    for epoch in range(25):
        sample = only_sample(dataset, Key(0, epoch))
        teacher = sample.teachers["t"]
        assert teacher is not None
        assert torch.equal(teacher.boxes, sample.truth.boxes)
        assert teacher.had_boxes
        kept = [round(score, 1) for score in teacher.scores.tolist()]
        assert kept in ([0.9, 0.8], [0.9], [0.8], [])
        counts.add(len(kept))
    assert len(counts) > 1  # crops did cut some away


def test_bad_images_are_replaced_and_reported(folder) -> None:
    folder.add("good.png", boxes=[(1, 1, 5, 5)])
    folder.add("absent.png", write=False)
    folder.add("torn.jpg")
    torn = folder.root / "torn.jpg"
    torn.write_bytes(torn.read_bytes()[:300])
    folder.add("turned.png", size=(40, 60), write=False)
    Image.new("RGB", (60, 40)).save(folder.root / "turned.png")
    folder.add("../escape.png", write=False)
    dataset = CocoDetection(folder.root, folder.coco, folder.space(), PLAIN)
    loaded = dataset[1]
    assert loaded.sample is not None
    assert loaded.sample.image_id == 100
    assert [problem.image_id for problem in loaded.problems] == [101, 102, 103, 104]
    words = ["no image file", "torn.jpg", "annotations say 40x60", "leaves the image folder"]
    for problem, expected in zip(loaded.problems, words, strict=True):
        assert expected in problem.message

    strict = CocoDetection(folder.root, folder.coco, folder.space(), PLAIN, replace=False)
    loaded = strict[2]
    assert loaded.sample is None
    assert [problem.image_id for problem in loaded.problems] == [102]


def test_no_usable_image_at_all(folder) -> None:
    folder.add("a.png", write=False)
    folder.add("b.png", write=False)
    dataset = CocoDetection(folder.root, folder.coco, folder.space(), PLAIN)
    with pytest.raises(DataError, match=r"none of the 2 images .* no image file .*b\.png"):
        dataset[1]


def test_teacher_of_another_image_size(folder, make_selection: Callable[..., Selection]) -> None:
    folder.add("a.png")
    selection = make_selection(t={100: ((30, 20), [])})
    dataset = CocoDetection(
        folder.root,
        folder.coco,
        folder.space(),
        PLAIN,
        selection=selection,
        replace=False,
    )
    (problem,) = dataset[0].problems
    assert "teacher 't' saw image 100 at 30 x 20 px" in problem.message


def test_teacher_category_without_logit(folder, make_selection: Callable[..., Selection]) -> None:
    # not a matter of one image: the store belongs to another data set
    folder.add("a.png")
    selection = make_selection(t={100: ((60, 40), [(0, 0, 9, 9, 0.5, 99)])})
    dataset = CocoDetection(folder.root, folder.coco, folder.space(), PLAIN, selection=selection)
    with pytest.raises(DataError, match="99"):
        dataset[0]


def test_empty_data_set(folder) -> None:
    with pytest.raises(DataError, match="lists no images"):
        CocoDetection(folder.root, folder.coco, folder.space(), PLAIN)


def test_missing_folder(folder) -> None:
    folder.add("a.png")
    with pytest.raises(DataError, match=r"no image folder at .*nowhere"):
        CocoDetection(folder.root / "nowhere", folder.coco, folder.space(), PLAIN)


@pytest.mark.parametrize("name", ["日本語 ü.png", "sub folder/a.png", "emoji-🚗.png"])
def test_names(folder, name: str) -> None:
    folder.add(name)
    folder.add("plain.png")
    dataset = CocoDetection(folder.root, folder.coco, folder.space(), PLAIN)
    assert only_sample(dataset).image.shape == (3, 40, 60)
    assert [dataset.file_name(0), dataset.file_name(1)] == [name, "plain.png"]


def test_limit(folder) -> None:
    for name in "abcd":
        folder.add(f"{name}.png", boxes=[(1, 1, 5, 5)])
    dataset = CocoDetection(folder.root, folder.coco, folder.space(), PLAIN, limit=3)
    assert (len(dataset), dataset.n_boxes) == (3, 3)


def test_augmentation_depends_on_seed_epoch_and_image_alone(folder) -> None:
    for name in "ab":
        folder.add(f"{name}.png", boxes=[(10, 10, 30, 20)])

    def make(seed: int) -> CocoDetection:
        transform = TrainTransform(SMALL)
        return CocoDetection(folder.root, folder.coco, folder.space(), transform, seed=seed)

    first = only_sample(make(1), Key(1, 5))
    torch.rand(100)
    again = make(1)
    only_sample(again, Key(0, 5))
    second = only_sample(again, Key(1, 5))
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.truth.boxes, second.truth.boxes)
    others = [only_sample(make(1), Key(1, epoch)) for epoch in range(6, 16)]
    others += [only_sample(make(seed), Key(1, 5)) for seed in range(2, 12)]
    shapes = {tuple(other.image.shape) for other in others}
    assert len(shapes) > 4


def test_pickles(folder, make_selection: Callable[..., Selection]) -> None:
    folder.add("a.png", boxes=[(10, 10, 30, 20)])
    selection = make_selection(t={100: ((60, 40), [(0, 0, 9, 9, 0.5, 3)])})
    dataset = CocoDetection(
        folder.root, folder.coco, folder.space(), TrainTransform(SMALL), selection=selection
    )
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(only_sample(copy).image, only_sample(dataset).image)
    assert torch.equal(only_sample(copy).truth.boxes, only_sample(dataset).truth.boxes)


def test_loader_processes_copy_no_annotations(
    folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coco_annotations, "_CACHED_FROM_BYTES", 0)
    for name in "abcdefgh":
        folder.add(f"{name}.png", boxes=[(1, 1, 5, 5)] * 500, crowd=name == "b")
    coco = coco_annotations.load_coco(folder.coco.path, cache=tmp_path / "cache")
    dataset = CocoDetection(folder.root, coco, folder.space(), PLAIN)
    assert dataset.n_boxes == 3500
    # what a process is given, and what a fork shares, does not grow with the annotations
    assert len(pickle.dumps(dataset)) < 2500
    arrays = [value for value in vars(dataset).values() if isinstance(value, np.ndarray)]
    assert not arrays
    before = len(gc.get_objects())
    for index in range(len(dataset)):
        assert len(only_sample(dataset, index).truth) == (0 if index == 1 else 500)
    gc.collect()
    assert len(gc.get_objects()) - before < 200


def test_real_photos(shared) -> None:
    from box_store.coco.annotations import load_coco

    root = shared / "data" / "coco-mini"
    coco = load_coco(root / "annotations" / "instances_train2017.json")
    space = ClassSpace("raw", coco.categories)
    dataset = CocoDetection(root / "train2017", coco, space, TrainTransform(AugmentConfig()))
    assert space.n_classes == 91
    for index in range(0, len(dataset), 40):
        sample = only_sample(dataset, Key(index, 3))
        _, height, width = sample.image.shape
        assert min(height, width) <= 800
        assert max(height, width) <= 1340
        assert ((sample.truth.boxes >= 0) & (sample.truth.boxes <= 1)).all()
