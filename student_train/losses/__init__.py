"""The losses: ground truth, one-to-many, denoising and teachers are supervisions of one set loss.

Read `supervision.py` (who supervises), `set_loss.py` (the formulas), `matcher.py` (who answers for
which box), `criterion.py` (the loop) and `config.py` (every choice, with its default).
"""

from .config import LossConfig, MatchCost, TeacherLossConfig
from .criterion import Criterion, Losses, fold
from .matcher import NonFinitePrediction, match
from .set_loss import set_loss
from .supervision import Supervision, supervise

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
