"""Deformable DETR and H-DETR against official numbers."""

from pathlib import Path

import pytest

from student_train.models import HDetr
from student_train.models.families.h_detr.parity import PARITY as H_DETR
from student_train.models.official import detect_family
from student_train.parity import run_parity
from student_train.parity.golden import GoldenStudent
from student_train.parity.rows import Row
from student_train.parity.students import build, check_evaluation, check_training

GOLDEN = Path(__file__).resolve().parents[4] / "golden"
HYBRID = "hdetr_hybrid_r50"


def failed(rows: list[Row]) -> list[Row]:
    return [row for row in rows if not row.passed]


def test_h_detr_equals_the_official_code() -> None:
    golden = GoldenStudent.open(GOLDEN, HYBRID)
    # the two families store parameters of the same names
    assert detect_family(golden.parameters()) == "deformable_detr"
    student = build(golden, H_DETR)
    assert isinstance(student, HDetr)
    assert sum(p.numel() for p in student.parameters()) == golden.settings["parameters"]

    rows = check_evaluation(golden, H_DETR, student)
    assert failed(rows) == []
    stored = {key for key in golden.outputs if not key.startswith("float64/")}
    assert stored == {row.output for row in rows}
    assert not student.training

    rows = check_training(golden, H_DETR, student)
    assert failed(rows) == []
    compared = {row.output for row in rows}
    # six layers and the proposals; six layers of the second set
    assert {f"match/{call}" for call in range(7 + 6)} <= compared
    terms = ("loss_ce", "loss_bbox", "loss_giou")
    losses = {key for key in golden.settings["train"]["losses"] if key.startswith(terms)}
    assert len(losses) == 3 * (7 + 6)
    assert {f"losses/{key}" for key in losses} <= compared
    assert {"out/one2many/pred_boxes", "grad keys", "grad_norm", "losses/total"} <= compared


@pytest.mark.slow
def test_gradients_in_float64() -> None:
    rows = run_parity(GOLDEN, [HYBRID])
    assert failed(rows) == []
    assert {"float64/pred_logits", "float64/grad_values"} <= {row.output for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "deformable_twostage_r50",
        "hdetr_tricks_r50",
        "hdetr_plain__swin_s",
        "hdetr_tricks__swin_s",
        "hdetr_hybrid__swin_t",
        "hdetr_hybrid__swin_s",
        "hdetr_hybrid__swin_l",
    ],
)
def test_every_backbone_and_trick(shared: Path, name: str) -> None:
    rows = run_parity(shared / "golden", [name], double=False)
    assert failed(rows) == []
    assert {"enc/logits", "enc/boxes", "topk_index"} <= {row.output for row in rows}
    hybrid = {row.output for row in rows if row.output.startswith("hybrid/one2many/")}
    assert bool(hybrid) == ("hybrid" in name)
