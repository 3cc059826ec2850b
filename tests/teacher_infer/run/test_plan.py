"""Units, and what does and does not make another teacher of a teacher."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teacher_infer.data.dataset import load_dataset
from teacher_infer.data.images import ImageTask
from teacher_infer.run.plan import default_unit_size, make_record, make_units
from teacher_infer.teachers.class_map import ClassMap
from teacher_infer.teachers.loaded import weights_sha256
from teacher_infer.teachers.parsing import parse_teacher


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3000), st.integers(1, 600))
def test_units_hold_every_image_once_and_in_order(n_images, size):
    tasks = [ImageTask(image_id, "a.jpg", 1, 1, "/") for image_id in range(n_images)]
    units = make_units(tasks, size)
    assert [task for unit in units for task in unit.tasks] == tasks
    assert [unit.index for unit in units] == list(range(-(-n_images // size)))
    assert all(len(unit.tasks) == size for unit in units[:-1])


@pytest.mark.parametrize(
    ("n_images", "size"),
    [(1, 32), (128, 32), (2048, 32), (2049, 64), (5000, 96), (118_287, 512), (10**7, 512)],
)
def test_units_grow_with_the_data_set_between_bounds(n_images, size):
    assert default_unit_size(n_images) == size


def test_weights_hash(tmp_path):
    one, two = tmp_path / "one.pth", tmp_path / "two.py"
    one.write_bytes(b"weights")
    two.write_bytes(b"config")
    # of one file: what sha256sum prints
    assert weights_sha256([one]) == hashlib.sha256(b"weights").hexdigest()
    assert weights_sha256([]) == ""
    both = weights_sha256([one, two])
    assert both == weights_sha256([two, one]) != weights_sha256([one])
    two.write_bytes(b"other config")
    assert weights_sha256([one, two]) != both


@pytest.fixture
def fingerprint(make_folder, tmp_path):
    """fingerprint(options text, images, weights) of a teacher over a small data set."""
    data = make_folder(5)
    dataset = load_dataset(data, ["train"], None, None)

    def make(
        keys: str = "", model: str = "y.onnx", weights: str = "aa", unit_size: int = 2, runtime=None
    ):
        spec = parse_teacher(f"y=onnx:{model},format=boxes{keys}")
        class_map = ClassMap.build(("person", "car"), dataset.categories, spec.class_map)
        record = make_record(
            spec,
            dataset,
            unit_size,
            class_map=class_map,
            weights=weights,
            licence=spec.licence or "unknown",
            versions={"onnxruntime": "1"},
            runtime=runtime or {},
        )
        assert record.n_units == -(-5 // unit_size)
        return record.fingerprint

    return make


@pytest.mark.parametrize(
    "keys",
    [",workers=4", ",device=cuda", ",batch_size=3", ",threads=2", ",num_cpus=2", ",num_gpus=1"],
)
def test_how_a_teacher_is_run_does_not_change_it(fingerprint, keys):
    assert fingerprint(keys) == fingerprint()


@pytest.mark.parametrize(
    "keys",
    [
        ",score_floor=0.2",
        ",nms_iou=0.6",
        ",top_k=10",
        ",image_size=64",
        ",licence=MIT",
        ",map.car=none",
        ",map.car=kite",
    ],
)
def test_what_decides_its_boxes_does(fingerprint, keys):
    assert fingerprint(keys) != fingerprint()


def test_weights_and_units_do_and_the_folder_of_the_model_does_not(fingerprint, tmp_path):
    assert fingerprint(weights="bb") != fingerprint()
    assert fingerprint(unit_size=3) != fingerprint()
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "y.onnx").touch()
    here, there = (str(tmp_path / folder / "y.onnx") for folder in ("here", "there"))
    assert fingerprint(model=here) == fingerprint(model=there) == fingerprint()
