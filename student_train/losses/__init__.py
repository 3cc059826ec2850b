"""The losses: ground truth, one-to-many, denoising and teachers are supervisions of one set loss.

Read `supervision.py` (who supervises), `loop.py` (the formulas, one layer and source at a time),
`set_loss.py` (the same, all at once), `matcher.py` (who answers for which box), `layout.py` (how a
step lies in memory), `criterion.py` (the order of events) and `config.py` (every choice).
"""

from student_train.losses.config import LossConfig, MatchCost, TeacherLossConfig
from student_train.losses.criterion import Criterion, Losses, fold
from student_train.losses.matcher import NonFinitePrediction, match
from student_train.losses.pulls import agreements, pulls
from student_train.losses.supervision import Supervision, supervise
from student_train.losses.totals import Totals

__all__ = [
    "Criterion",
    "LossConfig",
    "Losses",
    "MatchCost",
    "NonFinitePrediction",
    "Supervision",
    "TeacherLossConfig",
    "Totals",
    "agreements",
    "fold",
    "match",
    "pulls",
    "supervise",
]
