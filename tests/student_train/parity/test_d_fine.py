"""D-FINE and DEIM against official numbers."""

from pathlib import Path

import pytest

from student_train.models.families.d_fine.model import DFine
from student_train.models.families.d_fine.names import settings_from_shapes
from student_train.models.families.d_fine.parity import PARITY as D_FINE
from student_train.models.official import detect_family, export_official
from student_train.parity import run_parity
from student_train.parity.golden import GoldenStudent
from student_train.parity.rows import Row
from student_train.parity.students import build, check_evaluation, check_gradients, check_training

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


def failed(rows: list[Row]) -> list[Row]:
    return [row for row in rows if not row.passed]


@pytest.fixture(scope="module")
def golden() -> GoldenStudent:
    return GoldenStudent.open(GOLDEN, "dfine_n")


def test_d_fine_n_equals_the_official_code(golden: GoldenStudent) -> None:
    student = build(golden, D_FINE)
    assert isinstance(student, DFine)
    assert sum(p.numel() for p in student.parameters()) == golden.settings["parameters"]

    rows = check_evaluation(golden, D_FINE, student)
    assert failed(rows) == []
    stored = {key for key in golden.outputs if not key.startswith("float64/")}
    assert stored == {row.output for row in rows}

    rows = check_training(golden, D_FINE, student)
    assert failed(rows) == []
    compared = {row.output for row in rows}
    train = golden.train or {}
    assert {key for key in train if key.startswith("out/")} <= compared
    # three layers, the initial boxes and the proposals
    assert {f"match/{call}" for call in range(5)} <= compared
    assert {f"losses/{key}" for key in golden.settings["train"]["losses"]} <= compared
    assert {"union", "dn/attn_mask", "running_norm", "losses/total", "grad keys"} <= compared


@pytest.mark.slow
def test_gradients_in_float64(golden: GoldenStudent) -> None:
    student = build(golden, D_FINE).double()
    assert failed(check_gradients(golden, D_FINE, student, exact=True)) == []


@pytest.mark.parametrize("name", ["criterion_dfine", "criterion_deim"])
def test_losses_equal_the_official_code(name: str) -> None:
    rows = run_parity(GOLDEN, [name])
    assert failed(rows) == []
    kinds = {row.output.split("/", 1)[1] for row in rows}
    assert {"losses/truth", "losses/total", "gradients", "matching", "union"} <= kinds


def test_a_changed_parameter_is_seen(golden: GoldenStudent) -> None:
    """Edges that are counted in other units end elsewhere; what came before them does not."""
    student = build(golden, D_FINE)
    assert isinstance(student, DFine)
    student.decoder.scale.data.fill_(5.0)
    wrong = {row.output for row in failed(check_evaluation(golden, D_FINE, student))}
    assert "pred_boxes" in wrong
    assert "interm/boxes" not in wrong


def test_a_file_says_all_that_shapes_can_say(golden: GoldenStudent) -> None:
    student = build(golden, D_FINE)
    state = export_official(student)
    assert detect_family(state) == "d_fine"
    assert {key for key, *_ in golden.settings["keys"]} - set(state) == {
        key for key, *_ in golden.settings["keys"] if key.endswith(("tracked", "points_scale"))
    }
    found = settings_from_shapes(state)
    assert found == {
        "n_classes": 80,
        "dim": 128,
        "ffn_dim": 512,
        "encoder_dim": 128,
        "encoder_ffn_dim": 512,
        "encoder_layers": 1,
        "decoder_layers": 3,
        "strides": (16, 32),
        "backbone": "hgnetv2_b0",
        "depth": 2 / 3,
        "expansion": 0.34,
        "n_bins": 32,
        "reg_scale": 4.0,
        "n_points": (6, 6),
    }
