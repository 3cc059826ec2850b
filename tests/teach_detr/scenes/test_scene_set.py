"""`teach-detr scenes`: what it makes, what it refuses, what it does not do twice."""

import tomllib
from pathlib import Path

import pytest

from box_store import load_coco
from student_train.runs.checkpoint import load_matching
from teach_detr.cli import main
from teach_detr.scenes import drawing, scene_set
from teach_detr.scenes.settings import TEACHER_SIZES
from teach_detr.toy_teachers.shipped import MMDET_TEACHER, read_weights, weights_folder
from teacher_infer.teachers.parsing import load_teachers


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["scenes", *map(str, arguments)])
    return ended.value.code if isinstance(ended.value.code, int) else 0


def tiny(out: Path, *more: object) -> int:
    return call(out, "--images", 3, "--val-images", 2, *more)


def test_a_data_set_is_drawn_once(tmp_path: Path) -> None:
    out = tmp_path / "crowd"
    assert tiny(out, "--thin", 0.4) == 0
    path = out / "annotations" / "instances_train2017.json"
    train, val = load_coco(path), load_coco(out / "annotations" / "instances_val2017.json")
    assert (len(train.images), len(val.images)) == (3, 2)
    assert len(train.categories.names) == 12
    assert not set(train.image_ids) & set(val.image_ids)
    assert all((out / "train2017" / image.file_name).exists() for image in train.images)
    before = path.stat().st_mtime_ns
    assert tiny(out, "--thin", 0.4) == 0
    assert path.stat().st_mtime_ns == before


def test_a_folder_of_other_scenes_is_refused_until_fresh(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(drawing, "make_split", lambda *given, world, **_: drawn.append(world))
    out = tmp_path / "scenes"
    assert tiny(out, "--world", "toys") == 0
    (out / "old.txt").write_text("gone with --fresh")
    assert tiny(out) != 0
    assert "--fresh" in capfd.readouterr().err
    assert drawn == ["toys", "toys"]
    assert tiny(out, "--fresh") == 0
    assert drawn[2:] == ["crowd", "crowd"]
    assert not (out / "old.txt").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    assert tiny(tmp_path, "--fresh") != 0
    assert (tmp_path / "mine.txt").exists()


@pytest.mark.parametrize(
    ("wrong", "meant"), [(("--world", "crowdy"), "crowd"), (("--style", "dax"), "day")]
)
def test_what_is_unknown_leaves_nothing_behind(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], wrong: tuple[str, str], meant: str
) -> None:
    assert tiny(tmp_path / "x", *wrong) != 0
    assert f"Did you mean '{meant}'" in capfd.readouterr().err
    assert not (tmp_path / "x").exists()


def test_teachers_are_trained_on_other_scenes_and_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainings, which have tests of their own, are replaced by files."""
    ran: list[tuple[str, ...]] = []

    def pretend(self: object, module: str, *arguments: object, quiet: bool = False) -> None:
        ran.append((module, *map(str, arguments)))
        out = Path(str(arguments[1]))
        out.write_bytes(b"weights")
        out.with_suffix(".py").write_text("model = {}")

    monkeypatch.setattr(scene_set._Maker, "python", pretend)
    monkeypatch.setattr(scene_set, "find_spec", lambda name: object())
    out = tmp_path / "crowd"
    assert tiny(out, "--teachers", "--size", "tiny") == 0
    assert [command[0] for command in ran] == [
        "teach_detr.toy_teachers.yolo_training",
        "teach_detr.toy_teachers.mmdet_training",
    ]
    assert tiny(out, "--teachers", "--size", "tiny") == 0
    assert len(ran) == 2
    other = load_coco(out / "teachers/other/images/annotations/instances_train.json")
    assert len(other.images) == TEACHER_SIZES["tiny"].images
    own = (out / "train2017" / "000001.jpg").read_bytes()
    assert (out / "teachers/other/images/train/000001.jpg").read_bytes() != own
    assert set(tomllib.loads((out / "teachers.toml").read_text())["teachers"]) == {"yolo", "rtmdet"}
    specs = {spec.name: spec for spec in load_teachers(out / "teachers.toml")}
    assert specs["yolo"].model == str(out / "teachers" / "yolo.pt")
    assert specs["rtmdet"].options["weights"] == str(out / "teachers" / "rtmdet.pth")


@pytest.mark.filterwarnings("ignore")
def test_the_shipped_detector_gets_a_new_head_and_nothing_else() -> None:
    pytest.importorskip("mmdet")
    from teach_detr.toy_teachers.mmdet_training import build_detector, detector_config

    settings = detector_config([f"class{i}" for i in range(12)], image_px=224)
    report = load_matching(
        build_detector(settings), read_weights(weights_folder() / MMDET_TEACHER)[0]
    )
    assert not report.missing
    assert not report.unused
    assert all(name.startswith("bbox_head.rtm_cls.") for name in report.other_shape)
    assert settings.test_dataloader.dataset.pipeline[1]["scale"] == (224, 224)
    assert settings.test_dataloader.dataset.metainfo.classes[-1] == "class11"
