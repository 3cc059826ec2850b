"""Libraries, class names and checkpoints: what adapters share while they load."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from teacher_infer.adapters import loading
from teacher_infer.adapters.class_names import COCO_80, read_class_names
from teacher_infer.adapters.loading import import_library
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec, MissingLibrary
from teacher_infer.teachers.loaded import load_teacher


@pytest.mark.parametrize(
    ("spec", "extra"),
    [
        (AdapterSpec("onnx", "m.onnx", options={"format": "yolox"}), "onnx"),
        (AdapterSpec("mmdet", "retinanet_r18_fpn_1x_coco", options={"weights": "random"}), "mmdet"),
        (AdapterSpec("ultralytics", "yolo11n.yaml"), "ultralytics"),
        (AdapterSpec("transformers", "any/model"), "transformers"),
    ],
    ids=lambda value: value.adapter if isinstance(value, AdapterSpec) else "",
)
def test_a_missing_framework_names_the_extra_that_brings_it(
    spec: AdapterSpec, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").touch()
    library = {"onnx": "onnxruntime"}.get(spec.adapter, spec.adapter)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingLibrary, match=rf'pip install "teach-detr\[{extra}\]"'):
        load_teacher(spec)


def test_missing_system_libraries_of_opencv_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> ModuleType:
        raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(loading, "import_module", fail)
    with pytest.raises(MissingLibrary, match=r"apt-get install libgl1 libglib2.0-0"):
        import_library("mmdet", extra="mmdet")


def test_a_framework_that_is_there_but_broken_is_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(name: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'pkg_resources'", name="pkg_resources")

    monkeypatch.setattr(loading, "import_module", fail)
    with pytest.raises(MissingLibrary, match=r"is installed but can't be imported.*pkg_resources"):
        import_library("mmdet", extra="mmdet")


def test_cocos_names_are_eighty_different_ones() -> None:
    assert len(set(COCO_80)) == len(COCO_80) == 80
    assert (COCO_80[0], COCO_80[10], COCO_80[79]) == ("person", "fire hydrant", "toothbrush")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("names.txt", "cat\n dog \n\n", ("cat", "dog")),
        ("names.txt", "\ufeffgr\u00fcn\r\nrot\r\n", ("gr\u00fcn", "rot")),
        ("names.json", '["cat", "dog"]', ("cat", "dog")),
    ],
)
def test_class_names_are_read_from_text_and_json(
    tmp_path: Path, name: str, content: str, expected: tuple[str, ...]
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    assert read_class_names(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [("names.txt", b""), ("names.txt", b"cat\n\ndog"), ("names.txt", b"\xff\xfe\x00")]
    + [("names.json", content) for content in (b"{}", b"[1]", b"[")],
)
def test_files_that_are_no_class_names_are_refused(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AdapterError, match="names"):
        read_class_names(tmp_path / name)


def test_random_weights_are_the_same_each_time_and_disturb_nothing() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with loading.seeded():
        first = torch.rand(3)
    with loading.seeded():
        second = torch.rand(3)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
