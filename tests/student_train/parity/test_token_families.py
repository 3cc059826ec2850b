"""YOLOS and ViDT against official numbers."""

from pathlib import Path

import pytest

from student_train.models.families.vidt.parity import PARITY as VIDT
from student_train.models.families.yolos.parity import PARITY as YOLOS
from student_train.models.official import detect_family, export_official
from student_train.parity import run_parity
from student_train.parity.family import FamilyParity
from student_train.parity.golden import GoldenStudent
from student_train.parity.rows import Row
from student_train.parity.students import build, check_evaluation, check_training

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


def failed(rows: list[Row]) -> list[Row]:
    return [row for row in rows if not row.passed]


@pytest.mark.parametrize(
    ("name", "family", "calls"), [("yolos_tiny", YOLOS, 1), ("vidt_nano", VIDT, 7)]
)
def test_the_official_code_is_equalled(name: str, family: FamilyParity, calls: int) -> None:
    golden = GoldenStudent.open(GOLDEN, name)
    student = build(golden, family)
    exported = export_official(student)
    assert detect_family(exported) == student.config.family  # type: ignore[union-attr]
    # nothing more and nothing less than the official state dict, so official code loads it strictly
    official = {key: shape for key, shape, *_ in golden.settings["keys"]}
    assert {key: list(value.shape) for key, value in exported.items()} == official
    assert sum(p.numel() for p in student.parameters()) == golden.settings["parameters"]

    rows = check_evaluation(golden, family, student)
    assert failed(rows) == []
    stored = {key for key in golden.outputs if not key.startswith("float64/")}
    assert stored == {row.output for row in rows}

    rows = check_training(golden, family, student)
    assert failed(rows) == []
    compared = {row.output for row in rows}
    weighted = golden.settings["train"]["weight_dict"].keys() & golden.settings["train"]["losses"]
    # one prediction of YOLOS; seven of ViDT, the first of them by the backbone's tokens
    assert len(weighted) == 3 * calls
    assert {f"losses/{key}" for key in weighted} | {"grad keys", "grad_norm"} <= compared
    assert {f"match/{call}" for call in range(calls)} <= compared


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolos_tiny", "vidt_nano"])
def test_float64(name: str) -> None:
    rows = run_parity(GOLDEN, [name])
    assert failed(rows) == []
    assert {"float64/pred_logits", "float64/grad_values"} <= {row.output for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolos_small", "vidt_tiny", "vidt_small"])
def test_larger_sizes(shared: Path, name: str) -> None:
    assert failed(run_parity(shared / "golden", [name], double=False)) == []


@pytest.mark.parametrize("name", ["criterion_yolos", "criterion_vidt"])
def test_losses(shared: Path, name: str) -> None:
    rows = run_parity(shared / "golden", [name])
    assert failed(rows) == []
    assert all(row.status == "pass" for row in rows)
    assert {row.output.split("/")[1] for row in rows} == {"losses", "gradients", "matching"}
