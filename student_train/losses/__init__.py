"""The losses: ground truth, one-to-many, denoising and teachers are supervisions of one set loss.

Read `supervision.py` (who supervises), `set_loss.py` (the formulas), `matcher.py` (who answers for
which box), `criterion.py` (the loop) and `config.py` (every choice, with its default).
"""

from student_train.losses.config import LossConfig, MatchCost, TeacherLossConfig
from student_train.losses.criterion import Criterion, Losses, fold
from student_train.losses.matcher import NonFinitePrediction, match
from student_train.losses.set_loss import set_loss
from student_train.losses.supervision import Supervision, supervise

__all__ = [
    "Criterion",
    "LossConfig",
    "Losses",
    "MatchCost",
    "NonFinitePrediction",
    "Supervision",
    "TeacherLossConfig",
    "fold",
    "match",
    "set_loss",
    "supervise",
]
