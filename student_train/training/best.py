"""The best weights of a run: which they are, where they are kept, and going back to them."""

from dataclasses import dataclass

from box_store.categories import ClassSpace
from box_store.forms.protocol import Split
from box_store.wording import counted
from student_train.config import TrainConfig, as_plain
from student_train.errors import CheckpointError
from student_train.evaluation.evaluate import Evaluation
from student_train.machine.distributed import World
from student_train.models import Student
from student_train.runs.checkpoint import load_weights, save_weights
from student_train.runs.run_folder import RunFolder, class_space_to_plain
from student_train.training.optim import WeightAverage
from student_train.training.recorder import Recorder


@dataclass
class Position:
    """Where a run stands."""

    step: int = 0
    """steps done"""
    evaluated_step: int = -1
    """the last step whose weights were evaluated"""
    best: float = -1.0
    """AP of the best evaluation so far, in 0..1; -1 before the first"""
    restarted: bool = False
    """whether training has gone back to the best weights (`optim.restart_epoch`)"""


class BestWeights:
    """Keeps the weights of the best evaluation, those of the average where there is one."""

    def __init__(
        self,
        config: TrainConfig,
        model: Student,
        average: WeightAverage | None,
        class_space: ClassSpace,
        folder: RunFolder,
        world: World,
        recorder: Recorder,
    ) -> None:
        self._config = config
        self._model = model
        self._average = average
        self._class_space = class_space
        self._folder = folder
        self._world = world
        self._recorder = recorder

    def keep(self, at: Position, evaluation: Evaluation, source: Split) -> None:
        """Write an evaluation down, and its weights if none were better; by the first process."""
        ap = evaluation.metrics.AP
        # of equals the newer, which has seen more
        better = at.best < 0 if ap is None else at.best <= ap
        if ap is None:
            kept = "the newest weights are kept as the best" if better else "the best stays"
            self._recorder.say(
                f"warning   AP is undefined, no object of {source.label} is annotated: {kept}"
            )
        if evaluation.problems:
            self._recorder.say(
                f"warning   {counted(len(evaluation.problems), 'image')} of {source.label} could "
                "not be used and count as images without detections: "
                f"{'; '.join(evaluation.problems[:2])}"
            )
        self._recorder.evaluated(at.step, evaluation.metrics, source, better)
        try:
            evaluation.write(self._folder.results, source.name)
            if better or not self._folder.best.exists():
                self.save(at.step, evaluation)
                at.best = max(at.best, -1.0 if ap is None else ap)
        except (CheckpointError, OSError) as error:
            self._recorder.say(f"warning   {error}; a later evaluation tries again")
        self._recorder.publish()

    def save(self, step: int, evaluation: Evaluation | None = None) -> None:
        """Write the weights that are evaluated, with all that is needed to use them."""
        if not self._world.is_first:
            return
        model = self._model if self._average is None else self._average.model
        about = {
            "config": as_plain(self._config),
            "classes": class_space_to_plain(self._class_space),
            "step": step,
            "metrics": evaluation.metrics.values if evaluation else {},
        }
        save_weights(self._folder.best, model.state_dict(), about)

    def restart_if_due(self, at: Position, epoch: float) -> None:
        """Go on from the best weights once `optim.restart_epoch` is reached; all must call. The
        optimiser keeps what it knows.
        """
        optim = self._config.optim
        if optim.restart_epoch is None or epoch < optim.restart_epoch:
            return
        if self._average is not None and optim.restart_ema is not None:
            # of a resumed run, too
            self._average.decay = optim.restart_ema
        if at.restarted:
            return
        at.restarted = True
        world = self._world
        known = self._folder.best.exists() if world.is_first else False
        if not any(world.gather([known])):
            self._recorder.say(
                "warning   optim.restart_epoch: no evaluation has chosen best weights"
            )
            return
        if world.is_first:
            weights, _ = load_weights(self._folder.best)
            self._model.load_state_dict(weights)
        for tensor in self._model.state_dict().values():
            world.share(tensor)
        if self._average is not None:
            self._average.model.load_state_dict(self._model.state_dict())
        self._recorder.say(f"restart   from the best weights so far, AP {100 * at.best:.1f}")
