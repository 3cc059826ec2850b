"""Calibrated scores reach the loss: the student learns from a teacher as much as it deserves."""

import shutil
from pathlib import Path

import pytest
import torch

from box_store.calibration.score_map import Calibration, Part, Quality, ScoreMap, write_calibration
from box_store.errors import DataError, UsageError
from box_store.selection.selecting import SelectionSpec, select
from box_store.store.store import BoxStore
from student_train.config import problems_of
from student_train.losses import Criterion, LossConfig, TeacherLossConfig
from student_train.models.output import Prediction, StudentOutput

from .test_inputs import configured, inputs_of

HALF = ScoreMap("isotonic", ((0.0, 0.5), (1.0, 0.5)))


@pytest.fixture
def calibrated(store: Path, tmp_path: Path) -> Path:
    """The store, with a calibration of `sharp` by which each of its boxes is worth one half."""
    path = tmp_path / "store"
    shutil.copytree(store, path)
    opened = BoxStore.open(path)
    nothing = Quality(None, None, None, [])
    part = Part(0, 0, 0, nothing, nothing)
    fingerprint = opened.record("sharp").fingerprint
    write_calibration(
        opened,
        Calibration("sharp", fingerprint, HALF, "val.json", "0" * 64, 0.5, 0, 0.5, part, part),
    )
    return path


def teacher_losses(root: Path, rule: str, **values: object) -> dict[str, float]:
    """The parts of the loss against `sharp` for a fixed output on the first batch."""
    inputs = inputs_of(root, teachers__names="sharp", data__workers=0, **values)
    batch = next(inputs.train_batches(0, 0))
    generator = torch.Generator().manual_seed(0)
    n_images = len(batch.image_ids)
    prediction = Prediction(
        torch.randn(n_images, 30, 3, generator=generator),
        0.3 + 0.3 * torch.rand(n_images, 30, 4, generator=generator),
    )
    teacher = TeacherLossConfig(matched_weight=rule, background=0.0)
    criterion = Criterion(LossConfig(truth=0, denoising=0, teacher=teacher))
    losses = criterion(
        StudentOutput([prediction]), criterion.supervise(batch.truth, batch.teachers, 0)
    )
    return {name: value.item() for name, value in losses.parts.items()}


def test_losses_are_weighted_by_calibrated_scores(toy: Path, calibrated: Path) -> None:
    full = teacher_losses(toy, "one", teachers__store=calibrated)
    raw = teacher_losses(toy, "score", teachers__store=calibrated)
    half = teacher_losses(toy, "score", teachers__store=calibrated, teachers__calibrated="sharp")
    assert half.keys() == full.keys()
    assert {"teacher:sharp/class/0", "teacher:sharp/box/0", "teacher:sharp/giou/0"} <= half.keys()
    assert half == pytest.approx({name: value / 2 for name, value in full.items()})
    assert raw["teacher:sharp/box/0"] != pytest.approx(half["teacher:sharp/box/0"])


def test_a_run_says_and_records_that_scores_are_calibrated(toy: Path, calibrated: Path) -> None:
    raw = inputs_of(toy, teachers__store=calibrated)
    some = inputs_of(toy, teachers__store=calibrated, teachers__calibrated="sharp")
    assert any(
        note.startswith("teacher sharp:") and "calibrated on val.json (isotonic)" in note
        for note in some.notes
    )
    assert not any("calibrated" in note for note in raw.notes)
    assert raw.fingerprints["boxes"] != some.fingerprints["boxes"]


def test_the_score_floor_is_one_of_calibrated_scores(toy: Path, calibrated: Path) -> None:
    low, high = (
        inputs_of(
            toy,
            teachers__store=calibrated,
            teachers__names="sharp",
            teachers__calibrated="all",
            teachers__score_floor=floor,
        ).notes
        for floor in (0.5, 0.51)
    )
    assert any("teacher sharp: 24 boxes" in note for note in low)
    assert any("teacher sharp: 0 boxes" in note for note in high)


def test_what_cannot_be_calibrated_is_said(toy: Path, calibrated: Path) -> None:
    with pytest.raises(UsageError, match=r"teacher late .* run `teach-detr calibrate"):
        inputs_of(toy, teachers__store=calibrated, teachers__calibrated="all")
    config = configured(toy, teachers__boxes="some.arrow", teachers__calibrated="all")
    assert any("teachers.calibrated works on a store" in text for text in problems_of(config))


def test_licences_bind_a_selection_file_too(toy: Path, store: Path, tmp_path: Path) -> None:
    path = select(BoxStore.open(store), SelectionSpec(), tmp_path)
    with pytest.raises(DataError, match=r"holds boxes of late \(AGPL-3.0\)"):
        inputs_of(toy, teachers__boxes=path, teachers__deny_licences="AGPL*")
    kept = inputs_of(
        toy, teachers__boxes=path, teachers__names="sharp", teachers__deny_licences="AGPL*"
    )
    assert kept.train.teachers == ("sharp",)
    assert inputs_of(toy, teachers__store=store, teachers__licences="MIT").train.teachers == (
        "sharp",
    )
