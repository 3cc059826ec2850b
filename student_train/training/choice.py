"""`teachers.choose`: settings of every teacher that nobody gave, from the training annotations."""

from collections.abc import Sequence
from dataclasses import replace

from box_store.calibration.score_map import need_calibration
from box_store.coco.annotations import CocoData
from box_store.identity import seen_by
from box_store.selection.choosing import CHOICES, Choice, choose
from box_store.selection.selecting import TeacherFilter, chosen_teachers
from box_store.store.store import BoxStore
from student_train.config import NO_TEACHERS, TrainConfig
from student_train.runs.run_folder import RunRecord
from student_train.settings.origin import Kind, Origin
from student_train.settings.overrides import Resolved
from student_train.training.teachers import selection_spec

CHOSEN = Origin(Kind.CHOSEN)
_KEYS = ("teachers.names", "teachers.each")


def with_choice(
    resolved: Resolved[TrainConfig], coco: CocoData
) -> tuple[Resolved[TrainConfig], list[Choice]]:
    """The configuration with what was chosen for each teacher, and why.

    Nothing is chosen without a store (a selection file is somebody's choice already), where
    `teachers.choose` says none, and where the student does not learn from annotations.

    Raises:
        StoreError, UnknownTeacher, UsageError: no such store or teacher.
        DataError: boxes of other categories.
    """
    config = resolved.config
    teachers = config.teachers
    asked = teachers.choose == "auto" and config.loss.truth and teachers.names != NO_TEACHERS
    if teachers.store is None or not asked:
        return resolved, []
    store = seen_by(BoxStore.open(teachers.store), coco)
    if coco.table.unlabelled.all():
        # nothing to judge them by
        return resolved, []
    spec = selection_spec(teachers)
    choices = []
    for name in chosen_teachers(store, spec):
        rule = spec.rule(name)
        given = teachers.each.get(name, TeacherFilter())
        choices.append(
            choose(
                store,
                name,
                coco.of_labelled,
                rule,
                free=[
                    key
                    for key in CHOICES
                    if f"teachers.{key}" not in resolved.origins and getattr(given, key) is None
                ],
                calibration=need_calibration(store, name) if rule.calibrated else None,
                keep=name in teachers.keep,
            )
        )
    return _applied(resolved, choices), choices


def as_recorded(resolved: Resolved[TrainConfig], record: RunRecord) -> Resolved[TrainConfig]:
    """What a run that goes on chose when it began: it chooses once."""
    then = record.config.teachers
    found = {
        key: getattr(then, key.rpartition(".")[2])
        for key in _KEYS
        if record.origins.get(key) == CHOSEN
    }
    teachers = replace(
        resolved.config.teachers, **{key.rpartition(".")[2]: value for key, value in found.items()}
    )
    return Resolved(
        replace(resolved.config, teachers=teachers),
        resolved.origins | dict.fromkeys(found, CHOSEN),
    )


def _applied(resolved: Resolved[TrainConfig], choices: Sequence[Choice]) -> Resolved[TrainConfig]:
    teachers = resolved.config.teachers
    origins = dict(resolved.origins)
    each = dict(teachers.each)
    for choice in choices:
        if choice.is_taken and choice.chosen:
            values = {key: getattr(choice.rule, key) for key in choice.chosen}
            each[choice.teacher] = replace(each.get(choice.teacher, TeacherFilter()), **values)
    names = teachers.names
    if not all(choice.is_taken for choice in choices):
        names = tuple(c.teacher for c in choices if c.is_taken) or NO_TEACHERS
        # settings of teachers that are not selected would be refused
        each = {name: values for name, values in each.items() if name in names}
    if each != teachers.each:
        origins["teachers.each"] = CHOSEN
    if names != teachers.names:
        origins["teachers.names"] = CHOSEN
    changed = replace(teachers, names=names, each=each)
    return Resolved(replace(resolved.config, teachers=changed), origins)
