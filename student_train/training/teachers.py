"""The teacher boxes of a run: from a box store or a selection file, checked against the data."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from box_store.categories import Categories
from box_store.coco.annotations import CocoData
from box_store.errors import DataError
from box_store.identity import seen_by
from box_store.selection.images import check_selection
from box_store.selection.selecting import (
    Selection,
    SelectionSpec,
    TeacherFilter,
    chosen_teachers,
    licence_admitted,
    no_off,
    select,
)
from box_store.store.reader import seen_images
from box_store.store.splits import are_one
from box_store.store.store import BoxStore
from student_train.config import ALL_TEACHERS, NO_TEACHERS, TeacherConfig
from student_train.machine.distributed import World


def open_teachers(
    config: TeacherConfig,
    coco: CocoData,
    limit: int | None,
    world: World,
    n_queries: int | None = None,
) -> tuple[Selection | None, list[str]]:
    """The teacher boxes of a run, and a line about each teacher; (None, []) without teachers.

    n_queries: of the student, for a remark where a teacher has a box for half of them.

    Raises:
        StoreError, UnknownTeacher: no store or file there, or a name that it lacks.
        DataError: boxes of other categories, a teacher that saw none of the images, or not all of
            them where `config.missing` says that this is an error.
    """
    if config.names == NO_TEACHERS or not (config.store or config.boxes):
        return None, []
    other_names: list[str] = []
    if config.boxes is not None:
        selection = Selection.open(config.boxes)
        names = selection.teachers if config.names == ALL_TEACHERS else config.names
        for name in names:
            selection.of(name)
        _check_licences(selection, names, config)
        check_selection(selection, coco)
    else:
        assert config.store is not None
        store = BoxStore.open(config.store)
        wanted = chosen_teachers(store, selection_spec(config))
        store = seen_by(store, coco, wanted)
        other_names = _split_notes(store, wanted, coco)
        # one process selects, and all read its file: a store that is still being filled would give
        # each of them other boxes
        path = world.on_first(lambda: select(store, selection_spec(config)))
        selection = Selection.open(path)
        names = selection.teachers
    chosen = selection if tuple(names) == selection.teachers else _Named(selection, names)
    notes = list(_teacher_notes(chosen, coco, limit, config.missing == "error"))
    return chosen, [*other_names, *notes, *_crowding_notes(chosen, n_queries)]


def licences_of(selection: Selection) -> dict[str, str]:
    """Name -> licence of the teachers whose boxes a selection holds; of a fusion all that are in
    it.
    """
    sources = selection.metadata.get("sources", {})
    named = [name for name in selection.teachers if name in sources] or list(sources)
    return {name: sources[name]["licence"] for name in named}


def taught_classes(config: TeacherConfig) -> Categories | None:
    """The classes of the store that teaches; None without one."""
    if config.names == NO_TEACHERS or config.store is None:
        return None
    return BoxStore.open(config.store).categories


class _Named(Selection):
    """A selection file narrowed to some of its teachers."""

    def __init__(self, selection: Selection, names: Sequence[str]) -> None:
        super().__init__(selection.path)
        self.teachers = tuple(names)

    def __reduce__(self) -> tuple[object, ...]:
        return (_Named, (Selection(self.path), self.teachers))


def selection_spec(config: TeacherConfig) -> SelectionSpec:
    """What to select from the store."""
    of_all = config.calibrated == ALL_TEACHERS
    calibrated = () if of_all or config.calibrated == NO_TEACHERS else config.calibrated
    return SelectionSpec(
        teachers=None if config.names == ALL_TEACHERS else config.names,
        score_floor=config.score_floor,
        class_floors=config.class_floors,
        top_k=config.top_k,
        nms_iou=no_off(config.nms_iou),
        calibrated=of_all,
        licences=config.licences,
        deny_licences=config.deny_licences,
        combine=config.combine,
        fusion=config.fusion,
        per_teacher={
            **config.each,
            **{
                name: replace(config.each.get(name, TeacherFilter()), calibrated=True)
                for name in calibrated
            },
        },
    )


def _check_licences(selection: Selection, names: Sequence[str], config: TeacherConfig) -> None:
    """Refuse a selection file that holds boxes of teachers whose licence is not admitted.

    Raises:
        DataError: the teachers are named, or the file does not say whose boxes it holds.
    """
    if not (config.licences or config.deny_licences):
        return
    sources = selection.metadata.get("sources", {})
    # a set that is called after no teacher may hold boxes of all of them
    involved = names if all(name in sources for name in names) else sources
    refused = {
        name: sources[name]["licence"]
        for name in involved
        if not licence_admitted(sources[name]["licence"], config.licences, config.deny_licences)
    }
    if refused or not involved:
        found = ", ".join(f"{name} ({licence})" for name, licence in refused.items())
        raise DataError(
            f"{selection.path} holds boxes of {found or 'unknown teachers'}, whose licences "
            "teachers.licences and teachers.deny_licences do not admit: make it again without them "
            "(`teach-detr select --deny-licence`)"
        )


def _split_notes(store: BoxStore, teachers: Sequence[str], coco: CocoData) -> list[str]:
    """A remark where the store calls the split of the training images otherwise."""
    known = set(coco.image_ids)
    held = {image.split for image in seen_images(store, teachers) if image.id in known} - {""}
    if not coco.split or any(are_one(name, coco.split) for name in held) or not held:
        return []
    return [
        f"the store holds these images as the split {' and '.join(sorted(held))}, the annotations "
        f"are of {coco.split}: ids, file names and sizes agree"
    ]


def _crowding_notes(selection: Selection, n_queries: int | None) -> Iterator[str]:
    for name in selection.teachers:
        counts = np.diff(selection.of(name).offsets)
        if n_queries is not None and len(counts) and counts.mean() >= n_queries / 2:
            yield (
                f"teacher {name} has {counts.mean():.0f} boxes an image and the student "
                f"{n_queries} queries: with a box for every second query, few are left to say that "
                "there is nothing. Raise teachers.score_floor, or lower teachers.top_k or "
                "teachers.nms_iou"
            )


def _teacher_notes(
    selection: Selection, coco: CocoData, limit: int | None, all_images: bool
) -> Iterator[str]:
    wanted = coco.table.image_ids[:limit]
    taught = np.zeros(len(wanted), bool)
    known: set[int] = set()
    for name in selection.teachers:
        rows = selection.of(name)
        unknown = coco.categories.unknown(rows.category_ids)
        if unknown:
            raise DataError(
                f"{selection.path}: boxes of teacher {name} have category ids {unknown[:5]} that "
                f"{coco.path} lacks"
            )
        covered = np.isin(wanted, rows.image_ids)
        if not covered.any():
            raise DataError(
                f"teacher {name} saw none of the {len(wanted)} training images of {coco.path}: "
                "run it on this split, or leave it out of --teachers"
            )
        if all_images and not covered.all():
            raise DataError(
                f"teacher {name} never saw {int((~covered).sum())} of the {len(wanted)} training "
                f"images of {coco.path}, image {int(wanted[~covered][0])} first: run it on them, "
                "or set teachers.missing=skip"
            )
        per_image = np.diff(rows.offsets)[np.isin(rows.image_ids, wanted)]
        calibration = selection.metadata.get("calibrations", {}).get(name)
        yield (
            f"teacher {name}: {int(per_image.sum())} boxes in {int(covered.sum())} of "
            f"{len(wanted)} training images"
            + (
                f", scores calibrated on {calibration['annotations']} ({calibration['method']})"
                if calibration
                else ""
            )
        )
        counts = np.diff(rows.offsets)
        taught |= np.isin(wanted, rows.image_ids[counts > 0])
        known.update(np.unique(rows.category_ids).tolist())
    if not taught.all():
        share = 100 * (1 - taught.mean())
        nobody = int((~taught & coco.table.unlabelled[:limit]).sum())
        yield (
            f"no teacher has a box for {share:.1f} % of the training images "
            f"({int((~taught).sum())} of {len(wanted)}): only annotations teach there"
            + (f", and {nobody} of them nobody labelled" if nobody else "")
        )
    if holes := [item.name for item in coco.categories.items if item.id not in known]:
        shown = ", ".join(holes[:5]) + (", ..." if len(holes) > 5 else "")
        yield (
            f"no teacher has a box of {len(holes)} of {len(coco.categories)} classes ({shown}): "
            "if they should, look at the class maps (`teacher-infer plan`)"
        )
