"""What `teachers.choose` makes of a configuration, and what is kept of it."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from box_store.selection.selecting import TeacherFilter
from box_store.store.store import BoxStore
from student_train.config import NO_TEACHERS, TrainConfig, from_plain, resolve
from student_train.data.splits import open_split
from student_train.errors import ConfigError
from student_train.presets import load_preset
from student_train.settings.origin import ARGUMENT
from student_train.settings.overrides import Layer, Resolved
from student_train.training import choice as module
from student_train.training.choice import CHOSEN, with_choice
from student_train.training.choice_table import choice_notes, choice_table
from student_train.training.inputs import make_inputs, train_source
from student_train.training.launch import resumed


def configured(toy: Path, store: Path, **values: object) -> Resolved[TrainConfig]:
    settings = {key.replace("__", "."): value for key, value in values.items()}
    settings |= {"data.root": toy, "teachers.store": store}
    return resolve(load_preset("dino-micro"), arguments=[Layer(ARGUMENT, settings)])


def chosen(resolved: Resolved[TrainConfig]) -> tuple[Resolved[TrainConfig], dict[str, Any]]:
    coco = open_split(train_source(resolved.config))
    found, choices = with_choice(resolved, coco)
    return found, {choice.teacher: choice for choice in choices}


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """`late` is off by 3 px and saw six images: let that be judged, and be too bad."""
    monkeypatch.setattr("box_store.selection.choosing.MIN_OBJECTS", 5)
    choose = module.choose

    def picky(store: BoxStore, name: str, *rest: Any, **how: Any) -> Any:
        found = choose(store, name, *rest, **how)
        if name == "late" and not how["keep"]:
            return replace(found, verdict="left out", reason="it is late")
        return replace(found, verdict="chosen", rule=replace(found.rule, score_floor=0.5),
                       chosen=("score_floor",))  # fmt: skip

    monkeypatch.setattr(module, "choose", picky)


def test_good_teachers_are_taken_as_they_are(toy: Path, store: Path) -> None:
    before = configured(toy, store)
    after, choices = chosen(before)
    assert after == before
    assert choices["sharp"].verdict == "as it is"
    assert choices["sharp"].after.right == 1
    # 12 objects in the six images that it saw are too few
    assert choices["late"].verdict == "not judged"


@pytest.mark.parametrize(
    "values", [{"teachers__choose": "none"}, {"teachers__names": "none"}, {"loss__truth": 0}]
)
def test_where_nothing_is_chosen(toy: Path, store: Path, values: dict[str, object]) -> None:
    before = configured(toy, store, **values)
    assert chosen(before) == (before, {})


def test_choices_are_settings_with_an_origin(toy: Path, store: Path, strict: None) -> None:
    after, choices = chosen(configured(toy, store))
    teachers = after.config.teachers
    assert teachers.names == ("sharp",)
    assert teachers.each == {"sharp": TeacherFilter(score_floor=0.5)}
    assert after.origins["teachers.each"] == after.origins["teachers.names"] == CHOSEN
    inputs = make_inputs(after.config, open_split(train_source(after.config)), _world())
    # of two boxes an image, the second scores 0.4
    assert "teacher sharp: 12 boxes in 12 of 12 training images" in inputs.notes
    assert any(
        "late: not worth having: it is late" in line for line in choice_notes([*choices.values()])
    )


def test_a_table_says_what_is_taken_and_why(toy: Path, store: Path, strict: None) -> None:
    _, choices = chosen(configured(toy, store))
    console = Console(width=160, file=StringIO())
    console.print(choice_table([*choices.values()]))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()[4:-1]]
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        *(("late", "given", ""), ("", "best", "not worth having")),
        *(("sharp", "given", ""), ("", "chosen", "worth having")),
    ]
    # objects and boxes an image, percent right
    assert (rows[2][5], rows[2][6], rows[2][7]) == ("2.0", "2.0", "100")


def test_a_teacher_can_be_kept_all_the_same(toy: Path, store: Path, strict: None) -> None:
    after, _ = chosen(configured(toy, store, teachers__keep="late"))
    assert set(after.config.teachers.each) == {"late", "sharp"}
    assert "teachers.names" not in after.origins


def test_without_any_teacher_left_it_is_the_baseline(toy: Path, store: Path, strict: None) -> None:
    after, choices = chosen(configured(toy, store, teachers__names="late"))
    assert after.config.teachers.names == NO_TEACHERS
    assert "no teacher is left" in [*choice_notes([*choices.values()])][-1]


@pytest.mark.parametrize(
    ("values", "free"),
    [
        ({}, {"nms_iou", "score_floor", "top_k"}),
        ({"teachers__score_floor": 0.05}, {"nms_iou", "top_k"}),
        ({"teachers__each__sharp__top_k": 7}, {"nms_iou", "score_floor"}),
        ({"teachers__each__late__top_k": 7}, {"nms_iou", "score_floor", "top_k"}),
    ],
)
def test_what_somebody_gave_is_not_chosen(
    toy: Path,
    store: Path,
    values: dict[str, object],
    free: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, set[str]] = {}
    choose = module.choose

    def watched(store: BoxStore, name: str, *rest: Any, **how: Any) -> Any:
        asked[name] = set(how["free"])
        return choose(store, name, *rest, **how)

    monkeypatch.setattr(module, "choose", watched)
    chosen(configured(toy, store, **values))
    assert asked["sharp"] == free


def test_a_run_that_goes_on_keeps_its_choice(
    toy: Path, store: Path, tmp_path: Path, strict: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    from student_train.training.launch import train

    asked = configured(
        toy, store, steps=1, model__n_queries=8, model__top_k=8, data__val_split="none"
    )
    train(asked, tmp_path / "run", Console(quiet=True))
    record = json.loads((tmp_path / "run/config.json").read_text())
    assert [c["verdict"] for c in record["choices"]] == ["left out", "chosen"]
    assert record["origins"]["teachers.names"] == str(CHOSEN)
    # a later version would choose otherwise
    monkeypatch.setattr(module, "choose", None)
    again = replace(asked.config, steps=2)
    train(Resolved(again, asked.origins), tmp_path / "run", Console(quiet=True), resume=True)
    assert resumed(tmp_path / "run", []).config.teachers.names == ("sharp",)


def test_the_table_of_a_teacher_is_typed_and_checked(toy: Path, store: Path) -> None:
    config = configured(
        toy, store, **{"teachers__each__v1.5__nms_iou": "off", "teachers__each__v1.5__top_k": "7"}
    ).config
    assert config.teachers.each == {"v1.5": TeacherFilter(nms_iou="off", top_k=7)}
    assert from_plain(json.loads(json.dumps(_plain(config))), "json") == config
    with pytest.raises(ConfigError, match=r"got 'topk'.*Did you mean 'top_k'"):
        configured(toy, store, teachers__each__sharp__topk=7)
    with pytest.raises(ConfigError, match="a whole number"):
        configured(toy, store, teachers__each__sharp__top_k="many")


def test_former_settings_mean_what_they_meant(toy: Path, store: Path) -> None:
    config = configured(
        toy, store, teachers__score_floors__sharp=0.8, teachers__nms_ious={"late": 0.3}
    ).config
    assert config.teachers.each == {
        "sharp": TeacherFilter(score_floor=0.8),
        "late": TeacherFilter(nms_iou=0.3),
    }
    table = _plain(TrainConfig())
    for key in ("choose", "as", "keep", "each"):
        del table["teachers"][key]
    del table["loss"]["teacher"]["counts"]
    table["loss"]["teacher"]["proposals"] = "unweighted"
    table["teachers"] |= {"nms_iou": None, "top_ks": {"a.b": 5}, "score_floors": {}}
    old = from_plain(table, "an old run")
    assert (old.teachers.choose, old.teachers.nms_iou) == ("none", None)
    assert old.teachers.each == {"a.b": TeacherFilter(top_k=5)}
    assert (old.loss.teacher.counts, old.loss.teacher.proposals) == ("own", "unweighted")


def test_recipes_set_what_nothing_else_sets(toy: Path, store: Path) -> None:
    safe = configured(toy, store).config
    assert (safe.teachers.nms_iou, safe.teachers.choose) == (0.5, "auto")
    assert (safe.loss.teacher.proposals, safe.loss.teacher.counts) == ("weighted", "at_least_truth")
    released = configured(toy, store, teachers__as="released", teachers__fusion__iou=0.3)
    teachers, loss = released.config.teachers, released.config.loss.teacher
    assert (teachers.combine, teachers.nms_iou, teachers.choose) == ("fused", "off", "none")
    assert (teachers.fusion.iou, teachers.fusion.quota) == (0.3, True)
    assert (loss.proposals, loss.counts, loss.giou_form) == ("unweighted", "own", "released")
    assert str(released.origins["loss.teacher.counts"]) == "recipe teachers.as=released"
    paper = configured(toy, store, teachers__as="paper").config
    assert (paper.teachers.combine, paper.loss.teacher.counts) == ("parallel", "own")
    with pytest.raises(ConfigError, match="one of safe, paper, released"):
        configured(toy, store, teachers__as="publish")


def test_a_box_for_every_second_query_is_remarked(toy: Path, store: Path) -> None:
    def notes(queries: int) -> str:
        config = configured(
            toy, store, teachers__names="sharp", model__n_queries=queries, model__top_k=2
        ).config
        return " ".join(make_inputs(config, open_split(train_source(config)), _world()).notes)

    assert "teacher sharp has 2 boxes an image and the student 4 queries" in notes(4)
    assert "queries" not in notes(5)


def _plain(config: TrainConfig) -> dict[str, Any]:
    from student_train.config import as_plain

    return as_plain(config)


def _world() -> Any:
    from student_train.machine.distributed import World

    return World()
