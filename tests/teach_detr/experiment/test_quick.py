"""`teach-detr experiment --quick`: which teachers run, and what is answered."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from box_store.selection.choosing import Choice
from box_store.selection.rows import Rule
from student_train.settings.origin import Kind, Origin
from student_train.settings.overrides import Layer
from teach_detr.experiment import quick
from teach_detr.experiment.quick import answers, quick_plan, with_answers

RULE = Rule(score_floor=0.05, top_k=100, nms_iou=0.5, temperature=1.0, calibrated=False)
GOOD = Choice("good", "chosen", RULE, RULE, RULE)
BAD = Choice("bad", "left out", RULE, RULE, RULE, reason="wrong image ids")


def outcome(verdict: str, mean: float) -> dict[str, Any]:
    gap = {"mean": mean, "low": mean - 0.02, "high": mean + 0.02, "n_seeds": 3}
    return {"conditions": {"as-given": {"good": {"difference": gap, "verdict": verdict}}}}


@pytest.mark.parametrize(
    ("verdict", "mean", "answer"),
    [
        ("better", 0.03, "use it"),
        ("worse", -0.03, "leave it out"),
        ("no difference seen", 0.01, "no difference seen"),
    ],
)
def test_annotations_come_first_then_the_runs(verdict: str, mean: float, answer: str) -> None:
    good, bad = answers([GOOD, BAD], outcome(verdict, mean))
    assert good.answer == answer
    assert f"{100 * mean:+.1f} AP" in good.reason
    assert "3 pairs of runs" in good.reason
    assert str(bad) == "bad: leave it out: wrong image ids"
    assert with_answers({}, [bad])["answers"][0]["teacher"] == "bad"


def test_without_runs_nothing_is_claimed() -> None:
    (good,) = answers([GOOD], {})
    assert good.answer == "no difference seen"


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A store of two teachers, of which the annotations speak against one."""

    store = SimpleNamespace(teachers=("good", "fine", "bad"))
    monkeypatch.setattr("box_store.BoxStore.open", lambda path: store)
    verdicts = {
        "good": GOOD,
        "fine": Choice("fine", "as it is", RULE, RULE, RULE),
        "bad": BAD,
    }
    monkeypatch.setattr(quick, "_choice", lambda plan, name: verdicts[name])

    def made(**given: object) -> Any:
        layers = [
            Layer(Origin(Kind.ARGUMENT, key), {key.replace("__", "."): value})
            for key, value in given.items()
        ]
        return quick_plan(
            tmp_path, layers, {"data.root": str(tmp_path), "store.path": str(tmp_path)}
        )

    return made


def test_teachers_that_do_not_fit_are_not_trained_with(plan: Callable[..., Any]) -> None:
    found, choices = plan()
    assert {name: arm.teachers for name, arm in found.arms.items()} == {
        "none": "none",
        "good": "good",
        "fine": "fine",
        "parallel": "good,fine",
    }
    assert [choice.teacher for choice in choices] == ["good", "fine", "bad"]
    assert found.config.race


def test_what_a_user_gives_is_stronger(plan: Callable[..., Any]) -> None:
    settings = plan()[0].config.student.settings
    assert "dino_start" in settings["init"]
    other = plan(student__preset="dino-micro", student__settings__epochs=3)[0].config.student
    assert other.preset == "dino-micro"
    assert other.settings["epochs"] == 3
    # weights of another student, and another length
    assert not {"init", "steps"} & set(other.settings)
