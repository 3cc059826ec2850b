"""Resolved configurations as files, those of earlier versions included."""

import json
from pathlib import Path

import pytest

from student_train.config import resolve
from student_train.errors import ConfigError, RunError
from student_train.presets import load_preset
from student_train.runs.recorded import read_settings, write_settings
from student_train.runs.run_folder import SavedRun, changed_settings
from student_train.settings.origin import ARGUMENT, DATA, Kind, Origin
from student_train.settings.overrides import Layer

# as it was written in November 2026, before settings knew their origins as values
OLD = Path(__file__).with_name("old_config.json")


def test_nothing_is_lost(tmp_path: Path) -> None:
    layers = [
        Layer(ARGUMENT, {"optim.lr": "0.25", "loss.teacher.coefficients.a.b": "0.5"}),
        Layer(Origin(Kind.TABLE, "arms.x.settings"), {"augment.short_sides": [64, 96]}),
    ]
    resolved = resolve(load_preset("dino-micro"), {"init": "w.pth"}, "my.toml", layers)
    write_settings(tmp_path / "s.json", resolved)
    assert read_settings(tmp_path / "s.json") == resolved


def test_a_run_folder_of_an_earlier_version_reads(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(OLD.read_bytes())
    record = SavedRun(tmp_path).read()
    config, origins = record.resolved.config, record.resolved.origins
    assert (config.preset, config.model.family, config.model.n_classes) == ("dino-micro", "dino", 4)
    assert config.data.root == Path("coco")
    assert config.teachers.names == ("sharp",)
    assert config.teachers.score_floor == 0.1
    assert config.optim.lr == 0.002
    assert origins["optim.lr"] == ARGUMENT
    assert origins["data.root"] == Origin(Kind.ARGUMENT, "--data")
    assert origins["model.n_classes"] == DATA
    assert [item.name for item in record.class_space.categories.items] == ["a", "b", "c"]
    # and it is a file for --config
    assert read_settings(OLD) == record.resolved
    # today's settings of the same words compute the same
    arguments = Layer(
        ARGUMENT,
        {
            **{"optim.lr": "0.002", "teachers.names": "sharp", "teachers.score_floor": "0.1"},
            **{"teachers.store": "boxes", "model.n_classes": "4"},
        },
    )
    now = resolve(load_preset("dino-micro"), arguments=[arguments]).config
    assert {change.partition(":")[0] for change in changed_settings(config, now)} <= NEW_MEANINGS


# defaults that have changed since: a run of before keeps its own
NEW_MEANINGS = {
    *("teachers.choose", "teachers.nms_iou", "loss.teacher.counts", "loss.teacher.proposals"),
}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "was not written by this version"),
        ('{"format": 2}', "was not written by this version"),
        ('{"format": 1}', "no configuration with its origins"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(content)
    with pytest.raises(RunError, match=words):
        read_settings(path)


def test_settings_of_a_later_version_are_named(tmp_path: Path) -> None:
    content = json.loads(OLD.read_text())
    content["config"]["optim"]["momentun"] = 0.9
    path = tmp_path / "s.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"unknown setting 'optim\.momentun'"):
        read_settings(path)
