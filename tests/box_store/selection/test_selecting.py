import errno
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from box_store.boxes import Boxes
from box_store.errors import FormatError, StoreError, UnknownTeacher, UsageError
from box_store.fuse import FusionConfig, fuse
from box_store.places import files
from box_store.selection.selecting import FUSED, Selection, SelectionSpec, TeacherFilter, select
from box_store.store.reader import boxes_of

EVERYTHING = SelectionSpec(score_floor=0, top_k=1000)


def opened(store: Any, spec: SelectionSpec = EVERYTHING) -> Selection:
    return Selection.open(select(store, spec))


def two_teachers(maker: Any) -> Any:
    """`one` saw six images, `two` the first four, and failed on the first of them."""
    store = maker.store()
    maker.fill(store, maker.record("one"))
    images = maker.images(4)
    rows = {i.id: maker.row(i, maker.boxes(i.id + 900)) for i in images[1:]}
    rows[images[0].id] = maker.row(images[0], status="unreadable", error="bad JPEG")
    rows[images[1].id] = maker.row(images[1], Boxes.empty(640, 480))
    maker.fill(store, maker.record("two", n_images=4, licence="AGPL-3.0"), rows)
    return store


def test_a_selection_holds_what_the_store_holds(maker: Any) -> None:
    store = two_teachers(maker)
    selection = opened(store)
    assert selection.teachers == ("one", "two")
    for name in selection.teachers:
        for image in maker.images(6):
            assert selection.boxes(name, image.id) == boxes_of(store, name, image.id)
    assert selection.counts() == {"one": (6, 30), "two": (3, 10)}


def test_units_need_not_follow_one_another_by_id(maker: Any) -> None:
    store, record = maker.store(), maker.record()
    images = maker.images(6)
    for unit, (first, second) in enumerate(((4, 1), (5, 0), (2, 3))):
        rows = [maker.row(images[i], maker.boxes(i, n=i)) for i in (first, second)]
        store.register(record)
        store.write_unit("one", unit, rows)
    selection = opened(store)
    assert selection.of("one").image_ids.tolist() == [image.id for image in images]
    for number, image in enumerate(images):
        found = selection.boxes("one", image.id)
        assert found == boxes_of(store, "one", image.id)
        assert found is not None
        assert len(found) == number


def test_not_seen_and_nothing_found_are_different(maker: Any) -> None:
    selection = opened(two_teachers(maker))
    assert selection.boxes("two", 7) is None  # failed
    assert selection.boxes("two", 47) is None  # not in its image list
    assert selection.boxes("two", 8) is None  # no such image
    nothing = selection.boxes("two", 17)
    assert nothing is not None
    assert len(nothing) == 0
    assert (nothing.width, nothing.height) == (640, 480)


def test_boxes_are_the_callers_own(maker: Any) -> None:
    selection = opened(two_teachers(maker))
    first = selection.boxes("one", 7)
    assert first is not None
    first.boxes_xyxy[:] = 0
    first.scores[:] = 0
    assert selection.boxes("one", 7) != first


def test_a_selection_pickles_as_its_path(maker: Any) -> None:
    selection = opened(two_teachers(maker))
    data = pickle.dumps(selection)
    assert len(data) < 500
    again = pickle.loads(data)
    assert again.boxes("one", 7) == selection.boxes("one", 7)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(0, 10_000),
    st.lists(st.integers(0, 12), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.05, 0.4, 1.0]),
    st.sampled_from([1, 3, 100]),
    st.sampled_from([None, 0.0, 0.3]),
)
def test_filters_equal_those_of_single_images(
    new_maker: Callable[[], Any],
    seed: int,
    counts: list[int],
    floor: float,
    top_k: int,
    nms_iou: float | None,
) -> None:
    maker = new_maker()
    store, images = maker.store(), maker.images(len(counts))
    rows = {
        image.id: maker.row(image, maker.boxes(seed + image.id, n))
        for image, n in zip(images, counts, strict=True)
    }
    maker.fill(store, maker.record(n_images=len(counts)), rows)
    spec = SelectionSpec(score_floor=floor, top_k=top_k, nms_iou=nms_iou)
    selection = opened(store, spec)
    for image in images:
        expected = boxes_of(store, "one", image.id)
        assert expected is not None
        expected = expected.above(floor)
        if nms_iou is not None:
            expected = expected.nms(nms_iou)
        assert selection.boxes("one", image.id) == expected.top_k(top_k)


def test_a_teacher_may_have_rules_of_its_own(maker: Any) -> None:
    store = two_teachers(maker)
    spec = SelectionSpec(
        score_floor=0, per_teacher={"two": TeacherFilter(score_floor=0.5, top_k=1)}
    )
    selection = opened(store, spec)
    assert selection.boxes("one", 27) == boxes_of(store, "one", 27)
    whole = boxes_of(store, "two", 27)
    assert whole is not None
    assert selection.boxes("two", 27) == whole.above(0.5).top_k(1)


def test_temperature_tempers_scores_and_nothing_else(maker: Any) -> None:
    store = two_teachers(maker)
    spec = SelectionSpec(per_teacher={"one": TeacherFilter(score_floor=0, temperature=2.0)})
    plain, tempered = boxes_of(store, "one", 7), opened(store, spec).boxes("one", 7)
    assert plain is not None
    assert tempered is not None
    p = plain.scores.astype(float)
    np.testing.assert_allclose(tempered.scores, 1 / (1 + np.sqrt((1 - p) / p)), rtol=1e-4)
    assert np.array_equal(tempered.boxes_xyxy, plain.boxes_xyxy)


def test_fused_is_the_fusion_of_those_that_saw_the_image(maker: Any) -> None:
    store = two_teachers(maker)
    config = FusionConfig(iou=0.3, weights={"two": 0.9})
    selection = opened(store, SelectionSpec(score_floor=0, combine="fused", fusion=config))
    assert selection.teachers == (FUSED,)
    for image in maker.images(6):
        seen = {name: boxes_of(store, name, image.id) for name in ("one", "two")}
        expected = fuse({k: v for k, v in seen.items() if v is not None}, config)
        assert selection.boxes(FUSED, image.id) == expected
    assert selection.boxes(FUSED, 8) is None


def test_licences_are_left_out_by_pattern(maker: Any) -> None:
    store = two_teachers(maker)
    assert opened(store, SelectionSpec(deny_licences=("agpl*",))).teachers == ("one",)
    assert opened(store, SelectionSpec(licences=("agpl-*", "MIT"))).teachers == ("two",)
    with pytest.raises(UsageError, match=r"teacher two has the licence AGPL-3\.0, which is not ad"):
        select(store, SelectionSpec(teachers=("one", "two"), deny_licences=("AGPL*",)))
    with pytest.raises(UsageError, match=r"no teacher .* is left"):
        select(store, SelectionSpec(deny_licences=("*",)))


def test_an_unknown_teacher_suggests_the_nearest(maker: Any) -> None:
    store = two_teachers(maker)
    with pytest.raises(UnknownTeacher, match="Did you mean 'one'"):
        select(store, SelectionSpec(teachers=("onne",)))
    with pytest.raises(UnknownTeacher, match="'tow'"):
        select(store, SelectionSpec(per_teacher={"tow": TeacherFilter()}))
    with pytest.raises(UnknownTeacher, match="Did you mean 'two'"):
        opened(store).boxes("tow", 7)


def test_an_empty_store_has_nothing_to_select(maker: Any) -> None:
    with pytest.raises(UsageError, match="it has none yet"):
        select(maker.store(), SelectionSpec())


def test_a_teacher_without_units_selects_no_image(maker: Any) -> None:
    store = maker.store()
    store.register(maker.record())
    selection = opened(store)
    assert selection.counts() == {"one": (0, 0)}
    assert selection.boxes("one", 7) is None
    assert opened(store, SelectionSpec(combine="fused")).counts() == {FUSED: (0, 0)}


def test_asking_twice_gives_the_same_file(maker: Any) -> None:
    store = two_teachers(maker)
    path = select(store, SelectionSpec())
    written = path.stat().st_mtime_ns
    assert select(store, SelectionSpec()) == path
    assert path.stat().st_mtime_ns == written
    assert path.parent == store.path / "cache"


def test_another_question_gives_another_file(maker: Any) -> None:
    store = two_teachers(maker)
    specs = [
        SelectionSpec(),
        SelectionSpec(score_floor=0.1),
        SelectionSpec(top_k=5),
        SelectionSpec(nms_iou=0.5),
        SelectionSpec(teachers=("one",)),
        SelectionSpec(per_teacher={"one": TeacherFilter(temperature=2.0)}),
        SelectionSpec(combine="fused"),
        SelectionSpec(combine="fused", fusion=FusionConfig("wbf")),
    ]
    assert len({select(store, spec) for spec in specs}) == len(specs)
    # fusion settings do not matter where nothing is fused
    assert select(store, SelectionSpec(fusion=FusionConfig(iou=0.9))) == select(store, specs[0])


def test_a_grown_store_never_serves_the_old_boxes(maker: Any) -> None:
    store = maker.store()
    maker.fill(store, maker.record(), units=[0])
    before = opened(store)
    maker.fill(store, maker.record(), units=[1])
    after = opened(store)
    assert before.path != after.path
    assert before.boxes("one", 27) is None
    assert after.boxes("one", 27) is not None


def test_a_replaced_unit_never_serves_the_old_boxes(maker: Any) -> None:
    store, record = maker.store(), maker.record(n_images=1)
    image = maker.images(1)[0]
    maker.fill(store, record)
    before = select(store, EVERYTHING)
    for path in store.path.rglob("part-00000.parquet"):
        path.unlink()
    maker.fill(store, record, {image.id: maker.row(image, maker.boxes(4321))})
    assert select(store, EVERYTHING) != before


def test_another_folder_can_hold_the_cache(maker: Any, tmp_path: Path) -> None:
    store = two_teachers(maker)
    path = select(store, SelectionSpec(), tmp_path / "elsewhere")
    assert path.parent == tmp_path / "elsewhere"
    assert not (store.path / "cache").exists()


def test_a_full_disk_leaves_no_half_selection(maker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = two_teachers(maker)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(StoreError, match="No space left"):
            select(store, SelectionSpec())
    assert list((store.path / "cache").iterdir()) == []
    assert opened(store).teachers == ("one", "two")


@pytest.mark.parametrize("method", ["nms", "soft_nms", "wbf"])
@pytest.mark.parametrize("quota", [True, False])
def test_the_fusion_of_many_images_is_that_of_each(
    maker: Any, method: Any, quota: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("box_store.selection.fusing._BLOCK", 3)
    store = two_teachers(maker)
    config = FusionConfig(method, 0.1, {"two": 0.7}, quota)
    alone = opened(store)
    together = opened(store, replace(EVERYTHING, combine="fused", fusion=config))
    counts = 0
    for image in maker.images(6):
        seen = {name: alone.boxes(name, image.id) for name in alone.teachers}
        expected = fuse({name: rows for name, rows in seen.items() if rows is not None}, config)
        found = together.boxes(FUSED, image.id)
        assert found == expected
        counts += len(expected)
    assert 0 < counts <= sum(n for _, n in alone.counts().values())


def test_teachers_that_disagree_about_a_size_are_not_fused(maker: Any) -> None:
    store = maker.store()
    maker.fill(store, maker.record("one"))
    rows = {i.id: maker.row(i, maker.boxes(i.id)) for i in maker.images(6)}
    last = maker.images(6)[-1].id
    rows[last] = replace(rows[last], width=641, boxes=Boxes.empty(641, 480))
    maker.fill(store, maker.record("two"), rows)
    with pytest.raises(UsageError, match=r"disagree about the image's size: .*640.*641"):
        select(store, replace(EVERYTHING, combine="fused"))


def test_files_that_are_no_selection_are_refused(maker: Any, tmp_path: Path) -> None:
    path = select(two_teachers(maker), SelectionSpec())
    truncated = tmp_path / "truncated.arrow"
    truncated.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FormatError, match=r"truncated\.arrow is truncated"):
        Selection.open(truncated)
    other = tmp_path / "other.arrow"
    with pa.OSFile(str(other), "wb") as sink, pa.ipc.new_file(sink, pa.schema([])):
        pass
    with pytest.raises(FormatError, match="no selection"):
        Selection.open(other)
    with pytest.raises(StoreError, match="no selection at"):
        Selection.open(tmp_path / "missing.arrow")


@pytest.mark.parametrize(
    "values",
    [
        {"combine": "both"},
        {"score_floor": 1.5},
        {"top_k": 0},
        {"nms_iou": -0.1},
        {"teachers": ("a", "a")},
        {"per_teacher": {"a": TeacherFilter(temperature=0)}},
        {"per_teacher": {"a": TeacherFilter(top_k=0)}},
    ],
)
def test_questions_without_sense_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        SelectionSpec(**values)
