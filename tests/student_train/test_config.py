"""Presets, precedence, checks of a whole configuration."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from student_train.config import (
    NO_TEACHERS,
    TrainConfig,
    as_plain,
    from_plain,
    problems_of,
    resolve,
    without_teachers,
)
from student_train.errors import ConfigError
from student_train.presets import all_presets, count_parameters, load_preset
from student_train.settings.origin import ARGUMENT, Kind, Origin
from student_train.settings.overrides import Layer, settings


@pytest.mark.parametrize("name", all_presets())
def test_presets_are_usable_and_survive_json(name: str):
    config = load_preset(name)
    assert problems_of(config) == []
    assert config.preset == name
    assert from_plain(json.loads(json.dumps(as_plain(config))), "json") == config


@pytest.mark.parametrize(
    ("name", "n_parameters"),
    [
        # golden sets with 50 queries have 46,675,582, 47,038,206 and 217,012,466
        ("dino-r50-4scale", 46_675_582 + 850 * 256),
        ("dino-r50-5scale", 47_038_206 + 850 * 256),
        ("dino-swin-l-384", 217_012_466 + 850 * 256),
    ],
)
def test_published_presets_have_the_official_size(name: str, n_parameters: int):
    assert count_parameters(load_preset(name)) == n_parameters


def test_the_published_row_is_trained_as_published():
    config = load_preset("dino-swin-l-384")
    assert (config.epochs, config.optim.drop_epochs, config.batch_size) == (36, (30,), 16)
    assert (config.optim.lr, config.optim.backbone_lr) == (1e-4, 1e-5)
    assert (config.optim.offsets_lr_factor, config.optim.clip) == (1.0, 0.1)
    assert (config.model.n_queries, config.model.top_k) == (900, 300)
    assert config.model.dn_box_noise == 1.0
    loss = config.loss
    assert (loss.class_loss, loss.l1_loss, loss.giou_loss) == (1, 5, 2)


def test_an_unknown_preset_suggests_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'dino-r50-4scale'"):
        load_preset("dino-r50-4scales")


def test_precedence_is_argument_file_preset():
    preset = load_preset("dino-micro")
    file = {"epochs": 7, "optim": {"lr": 0.5, "clip": 0.2}}
    resolved = resolve(preset, file, "my.toml", [Layer(ARGUMENT, {"optim.lr": "0.25"})])
    assert resolved.config.epochs == 7
    assert resolved.config.optim.lr == 0.25
    assert resolved.config.optim.clip == 0.2
    assert resolved.origins["optim.lr"] == Origin(Kind.ARGUMENT)
    assert str(resolved.origins["epochs"]) == "file my.toml"
    assert str(resolved.origins["batch_size"]) == "preset dino-micro"
    assert "seed" not in resolved.origins


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": "0"}, "epochs must be at least 1"),
        ({"optim.lr": "-1"}, r"optim\.lr must be above 0"),
        ({"optim.accumulate": "3"}, "cannot be split"),
        ({"optim.ema": "1.5"}, r"optim\.ema must lie in 0\.\.1"),
        ({"augment.flip": "2"}, r"augment\.flip is a probability"),
        ({"augment.crop_sides": "9,3"}, "smallest,largest"),
        ({"teachers.names": "yolox"}, "without boxes: give --store"),
        ({"teachers.names": "none,yolox"}, "stand alone"),
        ({"teachers.store": "a", "teachers.boxes": "b"}, "exclude each other"),
        ({"device": "tpu"}, "device must be"),
        ({"data.limit": "0"}, r"data\.limit must be at least 1"),
    ],
)
def test_unusable_settings_are_refused(changes: dict[str, str], words: str):
    with pytest.raises(ConfigError, match=words):
        resolve(load_preset("dino-micro"), arguments=[Layer(ARGUMENT, changes)])


def test_the_baseline_differs_in_the_teachers_alone():
    config = replace(TrainConfig(), teachers=replace(TrainConfig().teachers, store=Path("store")))
    before, after = settings(config), settings(without_teachers(config))
    changed = {key for key in before if before[key].value != after[key].value}
    assert changed == {"teachers.names"}
    assert after["teachers.names"].value == NO_TEACHERS


def test_every_setting_of_the_trainer_has_a_help_text():
    ours = {
        key: setting
        for key, setting in settings(TrainConfig()).items()
        if key.split(".")[0] not in ("model", "loss") and ".fusion." not in key
    }
    assert [key for key, setting in ours.items() if not setting.help] == []
