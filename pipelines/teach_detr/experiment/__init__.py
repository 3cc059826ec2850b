"""`teach-detr experiment`: do teachers help this student on these labels, and how sure is that?

A grid of arms under conditions over seeds, on one data set and one box store; paired differences to
a reference arm with intervals over seeds and images.
"""

from teach_detr.experiment.config import Arm, Condition, ExperimentConfig, Plan, read_experiment
from teach_detr.experiment.experiment import Experiment, run_experiment

__all__ = [
    "Arm",
    "Condition",
    "Experiment",
    "ExperimentConfig",
    "Plan",
    "read_experiment",
    "run_experiment",
]
