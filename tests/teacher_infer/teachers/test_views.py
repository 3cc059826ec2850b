"""Mirrored and scaled views: a teacher that sees the same in each of them gives the same boxes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from box_store.boxes import Boxes
from box_store.errors import UsageError
from teacher_infer.adapters.protocol import AdapterSpec, ViewSpec
from teacher_infer.run.plan import make_record
from teacher_infer.teachers.loaded import load_teacher
from teacher_infer.teachers.parsing import as_argument, load_teachers, parse_teacher
from teacher_infer.teachers.views import ViewingTeacher

WIDTH, HEIGHT = 96, 64


class Toucher:
    """Finds rectangles by colour: `red` and `blue`, each at most once, bounded to the pixel."""

    class_names = ("red", "blue")
    licence = "MIT"
    versions: dict[str, str] = {}  # noqa: RUF012
    runtime: dict[str, str] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.shown: list[np.ndarray] = []

    def predict(self, images: list[np.ndarray]) -> list[Boxes]:
        self.shown += images
        return [self._one(image) for image in images]

    def _one(self, image: np.ndarray) -> Boxes:
        boxes, ids = [], []
        for class_id, channel in ((0, 0), (1, 2)):
            lit = image[..., channel] > 127
            if lit.any():
                rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
                boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
                ids.append(class_id)
        height, width = image.shape[:2]
        scores = np.full(len(ids), 0.5, np.float32)
        return Boxes(np.reshape(np.array(boxes, np.float32), (-1, 4)), scores, ids, width, height)


def viewing(spec: ViewSpec, teacher: Toucher | None = None) -> ViewingTeacher:
    return ViewingTeacher(teacher or Toucher(), spec, score_floor=0.05, top_k=100)


def picture(*rectangles: tuple[int, tuple[int, int, int, int]]) -> np.ndarray:
    """Black, with rectangles (channel, corners); the canvas around a small view is grey."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for channel, (x1, y1, x2, y2) in rectangles:
        image[y1:y2, x1:x2, channel] = 255
    return image


@st.composite
def rectangle(draw: st.DrawFn) -> tuple[int, int, int, int]:
    x1, y1 = draw(st.integers(0, WIDTH // 4 - 3)), draw(st.integers(0, HEIGHT // 4 - 3))
    # a little below a third of the image, so that some window always holds it whole
    x2 = min(x1 + draw(st.integers(2, 6)), WIDTH // 4)
    y2 = min(y1 + draw(st.integers(2, 4)), HEIGHT // 4)
    return 4 * x1, 4 * y1, 4 * x2, 4 * y2


@settings(max_examples=60, deadline=None)
@given(
    rectangle(),
    rectangle(),
    st.booleans(),
    st.sampled_from([(1.0,), (0.5,), (0.5, 1.0), (1.0, 2.0), (0.5, 1.0, 2.0)]),
    st.sampled_from(["nms", "soft_nms", "wbf"]),
    st.sampled_from([None, 40, 64]),
)
def test_an_equivariant_teacher_gives_the_same_boxes(
    red: tuple, blue: tuple, flip: bool, scales: tuple, merge: str, tile: int | None
) -> None:
    image = picture((0, red), (2, blue))
    (plain,) = Toucher().predict([image])
    spec = ViewSpec(flip, scales, merge, 0.5, tile, overlap=0.7)  # type: ignore[arg-type]
    (found,) = viewing(spec).predict([image])
    assert (found.width, found.height) == (WIDTH, HEIGHT)
    best = [np.flatnonzero(found.class_ids == class_id)[0] for class_id in (0, 1)]
    np.testing.assert_allclose(found.boxes_xyxy[best], plain.boxes_xyxy, atol=1.01)
    if merge == "nms":
        assert len(found) == 2
        np.testing.assert_array_equal(found.scores, [0.5, 0.5])


def test_objects_appear_as_large_as_the_scale_says() -> None:
    image = picture((0, (8, 8, 32, 24)))
    for scale, n_shown in ((0.5, 1), (1.0, 1), (2.0, 9)):
        teacher = Toucher()
        viewing(ViewSpec(scales=(scale,)), teacher).predict([image])
        assert len(teacher.shown) == n_shown
        assert {shown.shape for shown in teacher.shown} == {image.shape}
        (found,) = Toucher().predict(teacher.shown[:1])
        x1, y1, x2, y2 = found.boxes_xyxy[0]
        assert (x2 - x1, y2 - y1) == pytest.approx((24 * scale, 16 * scale), abs=1)


def test_tiles_are_shown_as_they_are_and_the_whole_beside_them() -> None:
    image = picture((0, (8, 8, 32, 24)), (2, (0, 40, WIDTH, 60)))
    for whole, flip, n_shown in ((True, False, 9), (False, False, 8), (True, True, 18)):
        teacher = Toucher()
        spec = ViewSpec(flip, tile=40, overlap=0.4, whole=whole)
        (found,) = viewing(spec, teacher).predict([image])
        shapes = [shown.shape for shown in teacher.shown]
        assert len(shapes) == n_shown
        assert shapes.count((40, 40, 3)) == 8 * (1 + flip)
        # what is longer than a tile is seen in the whole image alone
        assert found.boxes_xyxy.tolist() == [[8, 8, 32, 24], [0, 40, WIDTH, 60]][: 1 + whole]
    teacher = Toucher()
    viewing(ViewSpec(tile=WIDTH), teacher).predict([image])
    assert [shown.shape for shown in teacher.shown] == [image.shape]


def test_what_a_cut_truncates_is_left_to_other_views() -> None:
    across = picture((0, (0, 24, WIDTH, 40)))
    assert len(viewing(ViewSpec(scales=(2.0,))).predict([across])[0]) == 0
    (found,) = viewing(ViewSpec(scales=(1.0, 2.0))).predict([across])
    assert found.boxes_xyxy.tolist() == [[0, 24, WIDTH, 40]]


def test_views_that_disagree_count_less_in_an_average() -> None:
    class Left(Toucher):
        """Sees only what is in the left half, so never the same object in both mirrors."""

        def predict(self, images: list[np.ndarray]) -> list[Boxes]:
            found = super().predict(images)
            return [boxes.take(np.flatnonzero(boxes.boxes_xyxy[:, 0] < 48)) for boxes in found]

    image = picture((0, (8, 8, 32, 24)), (2, (56, 8, 80, 24)))
    (kept,) = viewing(ViewSpec(flip=True), Left()).predict([image])
    assert kept.scores.tolist() == [0.5, 0.5]
    (averaged,) = viewing(ViewSpec(flip=True, merge="wbf"), Left()).predict([image])
    assert averaged.scores.tolist() == [0.25, 0.25]


def test_images_of_several_sizes_are_seen_a_view_at_a_time() -> None:
    images = [picture((0, (8, 8, 32, 24))), np.zeros((1, 1, 3), np.uint8), picture()[:, :33]]
    teacher = Toucher()
    found = viewing(ViewSpec(True, (0.5, 1.0)), teacher).predict(images)
    assert [len(boxes) for boxes in found] == [1, 0, 0]
    assert [(boxes.width, boxes.height) for boxes in found] == [(96, 64), (1, 1), (33, 64)]
    assert len(teacher.shown) == 12


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"scales": ()}, "got none"),
        ({"scales": (1.0, 1.0)}, "ascending numbers"),
        ({"scales": (0.01,)}, r"from 0\.25 to 4"),
        ({"merge": "mean"}, "fusion is"),
        ({"merge_iou": 2}, r"lies in 0\.\.1"),
        ({"tile": 8}, "at least 32 pixels"),
        ({"tile": 64, "overlap": 0.95}, "from 0 to 0.9"),
        ({"whole": False}, "it needs tile=PIXELS"),
        ({"whole": False, "tile": 64, "scales": (0.5, 1.0)}, "goes without scales"),
    ],
)
def test_views_that_there_are_not_are_refused(values: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ViewSpec(**values)


def test_views_are_written_like_other_keys(tmp_path) -> None:
    text = "y=onnx:y.onnx,format=yolox,flip=true,scales=1.25,0.75,1,merge=wbf,merge_iou=0.55"
    spec = parse_teacher(text)
    assert spec.views == ViewSpec(True, (0.75, 1.0, 1.25), "wbf", 0.55)
    assert spec.adapter_spec("cpu", 1).views == spec.views
    path = tmp_path / "teachers.toml"
    path.write_text(
        '[teachers.y]\nadapter = "onnx"\nmodel = "y.onnx"\nformat = "yolox"\nflip = true\n'
        'scales = [0.75, 1, 1.25]\nmerge = "wbf"\nmerge_iou = 0.55\n'
    )
    assert load_teachers(path)[0].views == spec.views
    assert not parse_teacher("y=onnx:y.onnx").views
    tiled = parse_teacher("y=onnx:y.onnx,tile=1024,overlap=0.3,whole=false")
    assert tiled.views == ViewSpec(tile=1024, overlap=0.3, whole=False)
    assert parse_teacher(as_argument(tiled)) == tiled
    for wrong in (
        "tile=0",
        "tile=big",
        "overlap=2",
        "overlap=0.95,tile=64",
        "whole=false",
        "flip=maybe",
        "scales=big",
        "scales=9",
        "merge=mean",
    ):
        with pytest.raises(UsageError, match="teacher y: "):
            parse_teacher(f"y=onnx:y.onnx,{wrong}")


def test_views_are_part_of_what_a_teacher_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        image_ids = (1,)
        images_sha256 = "0" * 64
        tasks = (1,)
        mapping: dict[str, int | None] = {}  # noqa: RUF012

    def record(keys: str):
        spec = parse_teacher(f"y=onnx:y.onnx{keys}")
        values = {
            "class_map": Nothing(),
            "weights": "",
            "licence": "MIT",
            "versions": {},
            "runtime": {},
        }
        return make_record(spec, Nothing(), 32, **values)  # type: ignore[arg-type]

    plain = record("")
    assert "flip" not in plain.options
    assert record(",flip=false,scales=1,merge=wbf").fingerprint == plain.fingerprint
    seen = {record(keys).fingerprint for keys in (",flip=true", ",scales=0.5,1", ",scales=1,2")}
    assert len(seen | {plain.fingerprint}) == 4
    tiled = [",tile=64", ",tile=96", ",tile=64,overlap=0.3", ",tile=64,whole=false", ",flip=true"]
    assert len({record(keys).fingerprint for keys in tiled} | {plain.fingerprint}) == 6
    assert record(",overlap=0.5").fingerprint == plain.fingerprint
    assert "tile" not in record(",flip=true").options
    assert record(",flip=true,merge=wbf").differing_fields(record(",flip=true")) == [
        "options.merge"
    ]


def test_any_adapter_takes_views(detector) -> None:
    spec = AdapterSpec(
        "onnx", str(detector), options={"format": "boxes"}, views=ViewSpec(True, (0.5, 1.0))
    )
    teacher = load_teacher(spec)
    assert isinstance(teacher, ViewingTeacher)
    found = teacher.predict([np.full((48, 64, 3), 200, np.uint8)])
    assert len(found) == 1
    assert (found[0].scores >= spec.score_floor).all()
