"""Exported students detect what the student detects, also at sizes that nobody traced."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from box_store.categories import Categories, Category, ClassSpace
from detr_kernels import MultiScaleDeformableAttention
from student_train.errors import ExportError
from student_train.export import export_student
from student_train.export import files as export_files
from student_train.export.attention import PlainDeformableAttention, Sampler, exportable
from student_train.export.check import largest_difference
from student_train.export.files import run_onnx
from student_train.export.program import Detector, Example, trace
from student_train.models import build_student
from student_train.models.families.dino.model import DinoConfig
from student_train.presets import load_preset
from student_train.runs.trained import TrainedStudent

SPACE = ClassSpace("contiguous", Categories((Category(2, "cat"), Category(5, "dog"))))


@pytest.fixture(scope="module")
def student() -> TrainedStudent:
    """A DINO of one layer each: what is exported does not depend on how well it detects."""
    config = load_preset("dino-micro")
    assert isinstance(config.model, DinoConfig)
    small = replace(
        config.model,
        strides=(16, 32),
        n_levels=2,
        n_queries=8,
        top_k=6,
        n_classes=2,
        encoder_layers=1,
        decoder_layers=1,
    )
    torch.manual_seed(0)
    return TrainedStudent(build_student(small).eval(), replace(config, model=small), SPACE, "test")


@pytest.mark.parametrize("sampler", ["gather", "grid_sample"])
@pytest.mark.parametrize("coordinates", [2, 4])
@pytest.mark.parametrize(
    "options", [{}, {"n_points": (2, 4), "projections": False}, {"sampling": "nearest"}], ids=str
)
def test_plain_attention_equals_the_layer(
    coordinates: int, options: dict[str, Any], sampler: Sampler
):
    torch.manual_seed(0)
    options = {"n_points": 3, **options}
    layer = MultiScaleDeformableAttention(32, 4, 2, backend="torch", **options).eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    shapes = ((6, 5), (3, 2))
    query, tokens = torch.randn(2, 7, 32), torch.randn(2, 36, 32)
    # some beyond the map's borders
    reference = 1.4 * torch.rand(2, 7, 2, coordinates) - 0.2
    mask = torch.rand(2, 36) < 0.2
    expected = layer(query, reference, tokens, shapes, mask)
    found = PlainDeformableAttention(layer, sampler)(query, reference, tokens, shapes, mask)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_student_itself_stays_as_it_is(student: TrainedStudent):
    copy = exportable(student.model)
    layers = [m.layer for m in copy.modules() if isinstance(m, PlainDeformableAttention)]
    assert layers
    # only as what their plain twins read
    assert {m for m in copy.modules() if isinstance(m, MultiScaleDeformableAttention)} == {*layers}
    assert any(isinstance(m, MultiScaleDeformableAttention) for m in student.model.modules())


def shrunk(preset: str, **changes: object) -> TrainedStudent:
    """A preset's student of two classes, with every parameter moved off its start."""
    config = load_preset(preset)
    model = replace(config.model, n_classes=2, **changes)  # type: ignore[arg-type]
    torch.manual_seed(0)
    net = build_student(model).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    return TrainedStudent(net, replace(config, model=model), SPACE, "test")


SWIN = "swin_test_patch4_window7_224"
FIXED = "Swin cuts its maps into windows"
# preset, changes, why the size is fixed
LONG = [
    ("conditional-micro", {"backbone": "resnet18", "norm": "frozen"}, ""),
    ("dab-micro", {}, ""),
    ("dn-micro", {}, ""),
    ("vidt-micro", {}, FIXED),
    ("deformable-micro", {"backbone": SWIN}, FIXED),
    ("deformable-tricks-micro", {"mixed_selection": True, "look_forward_twice": True}, ""),
    ("h-deformable-micro", {}, ""),
    ("dino-micro", {"backbone": "mobilenetv2_100"}, ""),
    ("rtdetrv2-micro", {}, ""),
    ("rtdetrv2-micro", {"sampling": "nearest"}, ""),
    ("d-fine-micro", {}, ""),
    ("lw-detr-micro", {}, ""),
    ("rf-detr-micro", {}, "DINOv2's table"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "changes", "note"),
    [
        ("yolos-micro", {}, ""),
        *(
            pytest.param(
                *each,
                marks=pytest.mark.skipif(
                    not os.environ.get("TEACH_DETR_LONG"),
                    reason="a minute each: TEACH_DETR_LONG=1 runs it",
                ),
            )
            for each in LONG
        ),
    ],
    ids=lambda each: each if isinstance(each, str) and each.endswith("micro") else "",
)
def test_every_family_goes_into_files(
    preset: str, changes: dict[str, object], note: str, tmp_path: Path
):
    pytest.importorskip("onnxscript")
    student = shrunk(preset.replace("-tricks", ""), **changes)
    onnx, torch_export = tmp_path / "s.onnx", tmp_path / "s.pt2"
    multiple = student.config.model.side_multiple
    h, w = (66, 81) if multiple == 1 else (2 * multiple, 3 * multiple)
    down, right = (37, 41) if multiple == 1 else (multiple, 2 * multiple)
    done = export_student(student, (h, w), onnx=onnx, torch_export=torch_export)
    assert len(done) == 2
    for each in done:
        assert each.difference < 1e-5
        assert each.note.startswith(note)
        if note:
            assert each.dynamic == "batch"
            assert each.checked == tuple(f"{n} x 3 x {h} x {w}" for n in (2, 3, 1))
        else:
            assert each.dynamic == "size"
            sizes = ((2, h, w), (3, h + down, w), (1, h, w + right))
            assert each.checked == tuple("{} x 3 x {} x {}".format(*size) for size in sizes)


def test_sides_that_the_family_cannot_look_at_are_refused():
    student = shrunk("lw-detr-micro")
    with pytest.raises(ExportError, match=r"66 x 128 px: .* multiples of 64 px, 64 x 128 for"):
        export_student(student, (66, 128), torch_export=Path("s.pt2"))


@pytest.mark.slow
def test_files_detect_the_same_at_other_sizes(student: TrainedStudent, tmp_path: Path):
    pytest.importorskip("onnxscript")
    onnx, torch_export = tmp_path / "s.onnx", tmp_path / "out" / "s.pt2"
    done = export_student(student, (64, 80), onnx=onnx, torch_export=torch_export)
    assert [each.format for each in done] == ["torch.export", "ONNX"]
    for each in done:
        assert each.dynamic == "size"
        assert each.checked == ("2 x 3 x 64 x 80", "3 x 3 x 101 x 80", "1 x 3 x 64 x 121")
        assert each.difference < 1e-4
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    assert [tuple(i.shape) for i in session.get_inputs()] == [
        ("batch", 3, "height", "width"), ("batch", "height", "width"),
    ]  # fmt: skip
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == ["cat", "dog"]
    # padding decides: without its mask the second image is another one
    example = Example.make(2, 64, 80)
    scores = run_onnx(onnx)(example.images, example.mask)[0]
    unpadded = run_onnx(onnx)(example.images, torch.zeros_like(example.mask))[0]
    assert torch.equal(scores[0], unpadded[0])
    assert not torch.allclose(scores[1], unpadded[1])


def test_dimensions_are_called_what_they_are():
    onnx = pytest.importorskip("onnx")
    kind, info = onnx.TensorProto.FLOAT, onnx.helper.make_tensor_value_info
    few = "Min(50, 8*s14)"
    graph = onnx.helper.make_graph(
        [],
        "made",
        [info("images", kind, ["s0", 3, "s14", "s54"]), info("mask", kind, ["s0", "s14", "s54"])],
        [info("scores", kind, ["s0", few]), info("boxes", kind, ["s0", few, 4])],
    )
    model = onnx.helper.make_model(graph)
    export_files._name_dimensions(model)
    names = [
        [each.dim_param or each.dim_value for each in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert names == [
        ["batch", 3, "height", "width"],
        ["batch", "height", "width"],
        ["batch", "detections"],
        ["batch", "detections", 4],
    ]


def test_a_program_that_detects_something_else_is_refused(
    student: TrainedStudent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    original = Detector(student.model, 6)

    def wrong(images: torch.Tensor, mask: torch.Tensor):
        scores, labels, boxes = original(images, mask)
        return scores, labels, boxes + 0.01

    monkeypatch.setattr("student_train.export.write_torch", lambda *_: None)
    monkeypatch.setattr("student_train.export.run_torch", lambda _: wrong)
    monkeypatch.setattr("student_train.export.trace", lambda *_: FAKE)
    with pytest.raises(ExportError, match=r"differ by 1.0e-02, allowed are 1e-03. Do not use it"):
        export_student(student, (64, 64), torch_export=tmp_path / "s.pt2")


class FAKE:
    dynamic = "none"
    note = ""


def test_near_ties_may_change_places(student: TrainedStudent):
    scores = torch.tensor([[0.9, 0.5, 0.5, 0.1]])
    labels = torch.tensor([[0, 1, 0, 1]])
    boxes = torch.rand(1, 4, 4)
    order = [0, 2, 1, 3]
    example = Example.make(1, 32, 32)

    def one(*_: torch.Tensor):
        return scores, labels, boxes

    def other(*_: torch.Tensor):
        return scores[:, order] + 1e-7, labels[:, order], boxes[:, order]

    assert largest_difference(one, other, example) < 1e-6
    assert largest_difference(one, lambda *_: (scores, labels, boxes[:, order]), example) > 1e-3


def test_what_cannot_vary_is_fixed_and_said(monkeypatch: pytest.MonkeyPatch):
    class Stubborn(nn.Module):
        """Runs on batches of two only."""

        def forward(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            if images.shape[0] != 2:
                raise ValueError("two images, please")
            return images.mean((1, 2, 3)) + mask.sum()

    monkeypatch.setattr(
        "student_train.export.program.best", lambda output, k: (output, output, output)
    )
    program = trace(Stubborn(), 1, Example.make(2, 32, 32), "batch")
    assert program.dynamic == "none"
    assert "batch" in program.note


def test_missing_packages_are_named(student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(export_files, "ONNX_PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(ExportError, match=r"needs no_such_package.*teach-detr\[onnx\]"):
        export_student(student, (64, 64), onnx=tmp_path / "s.onnx")
