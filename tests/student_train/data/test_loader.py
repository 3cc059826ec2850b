"""Batches: padding, order, ranks, resuming, and reports of what went wrong."""

import logging
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

from box_store.errors import DataError
from box_store.selection.selecting import Selection
from student_train.config import AugmentConfig
from student_train.data.batch import Batch, BoxSets, collate
from student_train.data.coco import CocoDetection, Key, Sample
from student_train.data.loader import make_loader
from student_train.data.order import Order, aspect_groups, together
from student_train.data.prefetch import prefetch
from student_train.data.transforms import EvalTransform, TrainTransform
from student_train.errors import LoaderDied
from student_train.models.pixels import IMAGENET, UNIT
from student_train.models.targets import Targets

PLAIN = EvalTransform(AugmentConfig(eval_short_side=40, eval_long_side=60))
RANDOM = TrainTransform(
    AugmentConfig(short_sides=(32, 48), long_side=96, crop_resize=(40, 60), crop_sides=(24, 48))
)


def sample(height: int, width: int, image_id: int, value: int = 255) -> Sample:
    image = torch.full((3, height, width), value, dtype=torch.uint8)
    targets = Targets.truth(torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]))
    teachers = {"a": targets if image_id else None}
    return Sample(image, targets, teachers, image_id, (height * 2, width * 2))


def test_collate_pads_and_masks() -> None:
    batch = collate([sample(4, 6, 0), sample(5, 3, 1)])
    assert batch.images.shape == (2, 3, 5, 6)
    assert batch.images.dtype == torch.uint8
    assert batch.mask.shape == (2, 5, 6)
    assert not batch.mask[0, :4, :6].any()
    assert batch.mask[0, 4].all()
    assert batch.mask[1, :, 3:].all()
    assert batch.mask.sum() == 6 + 15
    assert (batch.images[0, :, 4] == 0).all()
    assert batch.image_ids == [0, 1]
    assert batch.original_sizes.tolist() == [[8, 12], [10, 6]]
    assert [each is None for each in batch.teachers["a"]] == [True, False]
    assert len(batch) == 2


def test_normalisation_happens_in_to() -> None:
    batch = collate([sample(4, 6, 0, value=51), sample(5, 3, 1)]).to("cpu", IMAGENET)
    assert batch.images.dtype == torch.float32
    expected = (torch.full((3,), 0.2) - torch.tensor(IMAGENET.mean)) / torch.tensor(
        IMAGENET.deviation
    )
    torch.testing.assert_close(batch.images[0, :, 0, 0], expected)
    assert (batch.images.movedim(1, -1)[batch.mask] == 0).all()
    assert torch.equal(batch.to("cpu", IMAGENET).images, batch.images)
    unit = batch.to("cpu", UNIT)
    torch.testing.assert_close(unit.images[0, :, 0, 0], torch.full((3,), 0.2))
    assert (unit.images.movedim(1, -1)[batch.mask] == 0).all()


def test_everything_moves_to_the_device() -> None:
    moved = collate([sample(4, 6, 1), sample(5, 3, 0)]).to("meta", IMAGENET)
    boxes = [*moved.truth, moved.teachers["a"][0]]
    assert moved.teachers["a"][1] is None
    tensors = [moved.images, moved.mask, moved.original_sizes]
    tensors += [
        t for each in boxes if each is not None for t in (each.labels, each.boxes, each.scores)
    ]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


@pytest.mark.parametrize("n", [1, 5, 16, 23])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_training_order(n: int, world: int) -> None:
    orders = [Order(n, 2, shuffle=True, seed=3, rank=rank, world=world) for rank in range(world)]
    per_rank = [order.batches() for order in orders]
    steps = {len(batches) for batches in per_rank}
    assert steps == {-(-n // (2 * world))} == {len(order) for order in orders}
    assert all(len(batch) == 2 for batches in per_rank for batch in batches)
    flat = [key.index for step in zip(*per_rank, strict=True) for b in step for key in b]
    assert set(flat) == set(range(n))
    assert sorted(flat[:n]) == list(range(n))
    assert flat[n:] == [flat[i % n] for i in range(len(flat) - n)]  # the fill of the last batch
    other = Order(n, 2, shuffle=True, seed=3, world=world)
    other.epoch = 1
    if n > 5:
        assert [k.index for b in other.batches() for k in b] != [
            k.index for b in per_rank[0] for k in b
        ]
    assert all(key.epoch == 1 for batch in other.batches() for key in batch)


def test_global_batches_do_not_depend_on_the_number_of_ranks() -> None:
    alone = Order(37, 6, shuffle=True, seed=1).batches()
    parts = [Order(37, 2, shuffle=True, seed=1, rank=r, world=3).batches() for r in range(3)]
    together = [[key for part in step for key in part] for step in zip(*parts, strict=True)]
    assert together == alone


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_order_is_exact(world: int) -> None:
    seen = []
    for rank in range(world):
        order = Order(10, 4, shuffle=False, rank=rank, world=world)
        batches = order.batches()
        assert len(batches) == len(order)
        seen += [key.index for batch in batches for key in batch]
        assert all(key.epoch == 0 for batch in batches for key in batch)
    assert sorted(seen) == list(range(10))


@pytest.fixture
def images(folder) -> CocoDetection:
    for index in range(7):
        folder.add(f"{index}.png", boxes=[(10, 10, 30, 20), (1, 1, 5, 5)])
    return CocoDetection(folder.root, folder.coco, folder.space(), RANDOM, seed=4)


def same(left: Batch, right: Batch) -> None:
    assert left.image_ids == right.image_ids
    assert torch.equal(left.images, right.images)
    assert torch.equal(left.mask, right.mask)
    for a, b in zip(left.truth, right.truth, strict=True):
        assert torch.equal(a.boxes, b.boxes)
        assert torch.equal(a.labels, b.labels)


def test_resuming_within_an_epoch(images: CocoDetection) -> None:
    loader = make_loader(images, 2, shuffle=True, seed=9)
    whole = list(loader.epoch(3))
    assert len(whole) == len(loader) == 4
    fresh = make_loader(images, 2, shuffle=True, seed=9)
    for left, right in zip(fresh.epoch(3, start=2), whole[2:], strict=True):
        same(left, right)
    # leaving an epoch early does not disturb the next
    iterator = loader.epoch(0)
    next(iterator)
    for left, right in zip(loader.epoch(3), whole, strict=True):
        same(left, right)


# Python 3.12 warns whenever a process with threads forks, which is what loaders do
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_workers_change_nothing(
    images: CocoDetection, folder, make_selection: Callable[..., Selection]
) -> None:
    size = (60, 40)
    rows = {100 + i: (size, [(10, 10, 40, 30, 0.5, 3)] * i) for i in range(6)}
    images.selection, images.teachers = make_selection(t=rows), ("t",)
    alone = make_loader(images, 3, shuffle=True, seed=9)
    shared = make_loader(images, 3, shuffle=True, seed=9, workers=2)
    for epoch, start in ((0, 0), (1, 1)):
        for left, right in zip(alone.epoch(epoch, start), shared.epoch(epoch, start), strict=True):
            same(left, right)
            for a, b in zip(left.teachers["t"], right.teachers["t"], strict=True):
                assert (a is None) == (b is None)
                if a is not None and b is not None:
                    assert torch.equal(a.boxes, b.boxes)
                    assert torch.equal(a.scores, b.scores)
                    assert a.had_boxes == b.had_boxes


@pytest.mark.parametrize(
    "broken", [ConnectionResetError(), ConnectionRefusedError(), EOFError(), FileNotFoundError()]
)
def test_a_process_lost_while_it_hands_pixels_over(
    images: CocoDetection, monkeypatch: pytest.MonkeyPatch, broken: Exception
) -> None:
    loader = make_loader(images, 2, shuffle=True, workers=1)
    batches = loader.epoch(0)
    next(batches)
    (worker,) = loader._processes()

    def break_off(**_: object) -> None:
        # the connection is gone a moment before the process is
        threading.Timer(0.1, worker.kill).start()
        raise broken

    monkeypatch.setattr(loader._loader._iterator._data_queue, "get", break_off)
    with pytest.raises(LoaderDied, match=r"fewer data\.workers"):
        list(batches)


def test_a_broken_connection_of_living_processes_is_no_loss(
    images: CocoDetection, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = make_loader(images, 2, shuffle=True, workers=1)
    batches = loader.epoch(0)
    next(batches)

    def break_off(**_: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(loader._loader._iterator._data_queue, "get", break_off)
    with pytest.raises(ConnectionResetError):
        list(batches)
    loader.kill()


def test_bad_images_are_logged_once(folder, caplog: pytest.LogCaptureFixture) -> None:
    folder.add("a.png")
    folder.add("b.png", write=False)
    dataset = CocoDetection(folder.root, folder.coco, folder.space(), PLAIN)
    loader = make_loader(dataset, 2, shuffle=True)
    with caplog.at_level(logging.WARNING):
        for epoch in range(3):
            for batch in loader.epoch(epoch):
                assert batch.image_ids == [100, 100]
    assert list(loader.problems) == [101]
    assert len([record for record in caplog.records if "b.png" in record.message]) == 1


def test_evaluation_leaves_bad_images_out(folder) -> None:
    for index in range(5):
        folder.add(f"{index}.png", write=index not in (1, 4))
    dataset = CocoDetection(folder.root, folder.coco, folder.space(), PLAIN, replace=False)
    loader = make_loader(dataset, 2, shuffle=False)
    assert [batch.image_ids for batch in loader] == [[100], [102, 103]]
    assert list(loader.problems) == [101, 104]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_no_usable_image_is_one_clear_sentence(folder, workers: int) -> None:
    folder.add("a.png", write=False)
    dataset = CocoDetection(folder.root, folder.coco, folder.space(), PLAIN)
    loader = make_loader(dataset, 1, shuffle=True, workers=workers)
    with pytest.raises(DataError) as caught:
        next(loader.epoch(0))
    assert str(caught.value).startswith("none of the 1 images")
    assert "Traceback" not in str(caught.value)


def test_keys_are_values() -> None:
    assert Key(3, 1) == Key(3, 1) != Key(3, 2)


def test_a_batch_is_few_tensors_whoever_supervises() -> None:
    nothing = Targets.truth(torch.zeros(0, dtype=torch.long), torch.zeros(0, 4))
    some = Targets(torch.tensor([90, 3]), torch.rand(2, 4), torch.tensor([0.5, 0.25]))
    gone = Targets(nothing.labels, nothing.boxes, nothing.scores, had_boxes=False)
    truth, teachers = [some, nothing], {"a": [None, some], "b": [gone, nothing], "c": [some, some]}
    packed = BoxSets.pack(truth, teachers)
    assert packed.rows.shape == (2 * 4, 6)
    found, seen = packed.unpack()
    assert list(seen) == ["a", "b", "c"]
    for wanted, got in zip(
        [*truth, *teachers["a"], *teachers["b"], *teachers["c"]],
        [*found, *seen["a"], *seen["b"], *seen["c"]],
        strict=True,
    ):
        assert (wanted is None) == (got is None)
        if wanted is not None and got is not None:
            assert got.had_boxes == wanted.had_boxes
            assert got.labels.dtype == torch.long
            for name in ("labels", "boxes", "scores"):
                assert torch.equal(getattr(got, name), getattr(wanted, name))


def test_padding_to_multiples_makes_few_shapes() -> None:
    batch = collate([sample(33, 65, 0), sample(40, 3, 1)], pad_to=32)
    assert batch.images.shape == (2, 3, 64, 96)
    assert not batch.mask[0, :33, :65].any()
    assert batch.mask.sum() == 2 * 64 * 96 - 33 * 65 - 40 * 3
    assert torch.equal(batch.boxes.rows, collate([sample(33, 65, 0), sample(40, 3, 1)]).boxes.rows)


@pytest.mark.parametrize(("world", "parts"), [(1, 1), (2, 1), (1, 3), (2, 2)])
def test_parts_of_a_step_are_cut_from_the_same_images(world: int, parts: int) -> None:
    size = 12 // (world * parts)
    ranks = [
        Order(50, size, shuffle=True, seed=1, rank=rank, world=world, parts=parts).batches()
        for rank in range(world)
    ]
    flat = [key for part in zip(*ranks, strict=True) for batch in part for key in batch]
    whole = [key for batch in Order(50, 12, shuffle=True, seed=1).batches() for key in batch]
    assert flat == whole
    assert len(ranks[0]) % parts == 0


def test_steps_of_one_aspect_ratio() -> None:
    g = np.random.default_rng(0)
    widths, heights = g.integers(100, 1000, 200), g.integers(100, 1000, 200)
    groups = aspect_groups(widths, heights, 2)
    assert groups is not None
    assert (groups == (widths >= heights)).all()
    orders = [
        Order(200, 3, shuffle=True, seed=5, rank=rank, world=2, groups=groups) for rank in (0, 1)
    ]
    steps = [
        [key.index for batch in step for key in batch]
        for step in zip(*(order.batches() for order in orders), strict=True)
    ]
    flat = [index for step in steps for index in step]
    assert sorted(flat[:200]) == list(range(200))
    mixed = [number for number, step in enumerate(steps) if len(set(groups[step])) > 1]
    # one step of what is left over of both groups, and the one that is filled up
    assert len(mixed) <= 2
    assert all(number >= len(steps) - 2 for number in mixed)
    # upright and lying steps come mixed, not one after the other
    assert len({int(groups[step[0]]) for step in steps[:10]}) == 2


def test_grouping_keeps_the_order_within_a_group() -> None:
    order, groups = np.array([5, 3, 1, 0, 4, 2]), np.array([0, 1, 0, 1, 1, 0])
    assert together(order, groups, 2).tolist() == [5, 1, 3, 0, 2, 4]
    assert aspect_groups(np.array([1]), np.array([1]), 1) is None


def test_prefetching_changes_nothing(images: CocoDetection) -> None:
    loader = make_loader(images, 2, shuffle=True)
    for ahead, plain in zip(
        prefetch(loader.epoch(1), torch.device("cpu")), loader.epoch(1), strict=True
    ):
        same(ahead.to("cpu", IMAGENET), plain.to("cpu", IMAGENET))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_prefetching_to_a_gpu_changes_nothing(images: CocoDetection) -> None:
    loader = make_loader(images, 2, shuffle=True)
    for ahead, plain in zip(
        prefetch(loader.epoch(1), torch.device("cuda", 0)), loader.epoch(1), strict=True
    ):
        assert ahead.images.device.type == "cuda"
        same(ahead.to("cuda").copied("cpu"), plain.to("cuda").copied("cpu"))
