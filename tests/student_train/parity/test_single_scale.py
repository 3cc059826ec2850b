"""Conditional, DAB and DN-DETR against official numbers."""

from pathlib import Path

import pytest

from student_train.models.families.dn_detr.parity import PARITY as DN
from student_train.parity import run_parity
from student_train.parity.golden import GoldenStudent
from student_train.parity.rows import Row
from student_train.parity.students import build, check_evaluation, check_training

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


def failed(rows: list[Row]) -> list[Row]:
    return [row for row in rows if not row.passed]


def test_dn_detr_equals_the_official_code() -> None:
    golden = GoldenStudent.open(GOLDEN, "dn_r50_dc5")
    student = build(golden, DN)
    assert sum(p.numel() for p in student.parameters()) == golden.settings["parameters"]

    rows = check_evaluation(golden, DN, student)
    assert failed(rows) == []
    stored = {key for key in golden.outputs if not key.startswith("float64/")}
    # the official decoder norms its last state twice
    assert stored - {row.output for row in rows} == {"probe/transformer.decoder.norm#7"}

    rows = check_training(golden, DN, student)
    assert failed(rows) == []
    compared = {row.output for row in rows}
    table = golden.settings["train"]
    weighted = table["weight_dict"].keys() & table["losses"]
    assert len(weighted) == 36
    assert {f"losses/{key}" for key in weighted} | {"grad keys", "grad_norm"} <= compared
    assert {"dn/attn_mask", "dn/map_known_indice", "out/dn/all_logits", "match/5"} <= compared


@pytest.mark.slow
def test_dn_detr_in_float64() -> None:
    rows = run_parity(GOLDEN, ["dn_r50_dc5"])
    assert failed(rows) == []
    assert {"float64/pred_logits", "float64/grad_values"} <= {row.output for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cond_r50", "dab_r50_dc5_pat3"])
def test_conditional_and_dab_detr(shared: Path, name: str) -> None:
    assert failed(run_parity(shared / "golden", [name])) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cond_r50_dc5", "cond_r101_dc5", "dab_r50_dc5", "dab_r101_dc5"])
def test_other_backbones(shared: Path, name: str) -> None:
    assert failed(run_parity(shared / "golden", [name], double=False)) == []


@pytest.mark.parametrize("name", ["conditional", "dab", "dn"])
def test_losses(shared: Path, name: str) -> None:
    rows = run_parity(shared / "golden", [f"criterion_{name}"])
    assert failed(rows) == []
    assert any(row.output.endswith("/matching") for row in rows)
