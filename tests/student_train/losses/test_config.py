"""Settings of the losses that make no sense are refused with a sentence."""

import pytest

from box_store.errors import UsageError
from student_train.losses import LossConfig, TeacherLossConfig


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": "lst"}, "Did you mean 'last'"),
        ({"label": "hrad"}, "Did you mean 'hard'"),
        ({"proposals": "unweight"}, "Did you mean 'unweighted'"),
        ({"empty": "drop"}, "expected had_boxes, keep, none, got 'drop'"),
        ({"giou_form": "old"}, "weighted, released"),
        ({"groups": ("proposals",)}, "matching, one_to_many"),
        ({"schedule": "stop"}, "constant, decay:E or stop:E"),
        ({"schedule": "decay:soon"}, "got 'decay:soon'"),
        ({"schedule": "stop:-1"}, "got 'stop:-1'"),
        ({"matched_weight": "power:x"}, "score, one or power:P"),
        ({"matched_weight": "power:nan"}, "score, one or power:P"),
        ({"background": -0.5}, "background: expected at least 0, got -0.5"),
        ({"coefficient": -1}, "coefficient: expected at least 0"),
        ({"coefficients": {"yolox": -1}}, "coefficients.yolox: expected at least 0"),
    ],
)
def test_bad_teacher_settings(options: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        TeacherLossConfig(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classification": "sigmoid"}, "focal, softmax"),
        ({"repeat": 0}, "repeat: expected at least 1, got 0"),
        ({"class_loss": -1}, "class_loss: expected at least 0"),
        ({"truth": float("nan")}, "truth: expected at least 0"),
    ],
)
def test_bad_settings(options: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        LossConfig(**options)
