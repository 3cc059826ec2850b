"""Origins as values, and their words in files."""

import pytest

from student_train.config import TrainConfig
from student_train.settings.origin import Kind, Origin
from student_train.settings.overrides import settings


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("detail", ["", "x", "--data", "my file.toml", "in a table"])
def test_words_of_an_origin_can_be_read_back(kind: Kind, detail: str) -> None:
    origin = Origin(kind, detail)
    assert Origin.parse(str(origin)) == origin


@pytest.mark.parametrize(
    ("text", "kind", "asked"),
    [
        ("argument", Kind.ARGUMENT, True),
        ("argument --data", Kind.ARGUMENT, True),
        ("file my.toml", Kind.FILE, True),
        ("preset dino-micro", Kind.PRESET, False),
        ("data", Kind.DATA, False),
        ("shapes in c.pth", Kind.SHAPES, False),
        ("categories", Kind.CATEGORIES, False),
        # nobody's word, though it begins like one
        ("filed away", Kind.OTHER, False),
        ("arguments of old", Kind.OTHER, False),
    ],
)
def test_what_run_folders_say(text: str, kind: Kind, asked: bool) -> None:
    assert Origin.parse(text).kind is kind
    assert Origin.parse(text).is_asked_for is asked


def test_the_settings_that_a_resumed_run_may_change() -> None:
    """A promise: a setting that joins or leaves these needs a decision."""
    found = {key for key, setting in settings(TrainConfig()).items() if setting.is_operational}
    assert found == {
        *("data.root", "data.train_images", "data.train_annotations", "data.val_images"),
        *("data.val_annotations", "data.workers", "data.val_limit"),
        *("teachers.store", "teachers.boxes", "log.to", "log.project", "log.offline", "init"),
        *("epochs", "steps", "eval_batch_size", "eval_every", "eval_backend", "save_every"),
        *("keep_last", "log_every", "device", "compile", "threads", "teachers.watch_every"),
    }
