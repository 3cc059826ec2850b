"""RT-DETRv2 against golden numbers."""

from pathlib import Path

import pytest

from student_train.models.families.rtdetr_v2.parity import PARITY as RTDETR_V2
from student_train.parity import run_parity
from student_train.parity.golden import GoldenStudent
from student_train.parity.rows import Row
from student_train.parity.students import build, check_evaluation, check_training

GOLDEN = Path(__file__).resolve().parents[4] / "golden"


def failures(rows: list[Row]) -> list[str]:
    return [f"{r.set} {r.output}: {r.error} > {r.tolerance}" for r in rows if not r.passed]


def test_r18_equals_its_oracles() -> None:
    golden = GoldenStudent.open(GOLDEN, "rtdetrv2_r18")
    student = build(golden, RTDETR_V2)
    assert sum(p.numel() for p in student.parameters()) == golden.settings["parameters"]
    rows = check_evaluation(golden, RTDETR_V2, student)
    assert failures(rows) == []
    compared = {r.output for r in rows}
    assert {key for key in golden.outputs if not key.startswith("float64/")} == compared

    rows = check_training(golden, RTDETR_V2, student)
    assert failures(rows) == []
    compared = {r.output for r in rows}
    assert {f"losses/{key}" for key in golden.settings["train"]["losses"]} <= compared
    assert {"dn/attn_mask", "dn/positive", "running_norm", "match/3", "grad_norm"} <= compared


@pytest.mark.parametrize("name", ["criterion_rtdetrv2", "criterion_rtdetrv2_focal"])
def test_the_losses_equal_their_oracles(name: str) -> None:
    rows = run_parity(GOLDEN, [name])
    assert failures(rows) == []
    assert len(rows) >= 10


@pytest.mark.slow
def test_float64() -> None:
    rows = run_parity(GOLDEN, ["rtdetrv2_r18"])
    assert failures(rows) == []
    assert {"float64/losses", "float64/grad_values"} <= {r.output for r in rows}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rtdetrv2_r50", "rtdetrv2_r18_416", "rtdetrv2_r18_discrete"])
def test_other_sizes(shared: Path, name: str) -> None:
    assert failures(run_parity(shared / "golden2", [name], double=False)) == []
