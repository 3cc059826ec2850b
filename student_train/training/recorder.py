"""What a running training tells the world: `metrics.jsonl`, trackers, and the line of progress."""

import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

from box_store.forms.protocol import Split
from box_store.patience import duration
from box_store.wording import counted
from student_train.config import TrainConfig
from student_train.evaluation.coco_metrics import Metrics
from student_train.evaluation.tables import percent
from student_train.losses import agreements, fold
from student_train.machine.runtime import Runtime
from student_train.runs.metrics import Clock, MetricsLog, RunningMeans
from student_train.runs.run_folder import RunFolder
from student_train.training.progress import ProgressLine, Status
from student_train.training.trackers import Trackers

_NORM = "grad_norm"


class Recorder:
    """Collects what every step measured and writes the means of an interval.

    All processes collect; the first one writes. The unfinished interval is part of a run's state,
    so that a resumed run writes the records that it would have written.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        runtime: Runtime,
        progress: ProgressLine,
        steps_per_epoch: int,
        total_steps: int,
    ) -> None:
        self._config = config
        self._runtime = runtime
        self._progress = progress
        self._steps_per_epoch = steps_per_epoch
        self._total_steps = total_steps
        self._folder = folder
        self._log = MetricsLog(folder.metrics)
        self._trackers = Trackers(config, folder)
        self._means = RunningMeans()
        self._norms = RunningMeans()
        self._pulls = RunningMeans()
        self._clock = Clock(total_steps, 0)
        self._begun = 0

    def begin(self, step: int, evaluated_step: int) -> None:
        """Start after `step` steps: later records of an earlier process go, the clock starts."""

        def already_done(record: Mapping[str, Any]) -> bool:
            done = evaluated_step if record.get("kind") == "eval" else step
            return record.get("step", 0) <= done

        if self._runtime.world.is_first:
            self._log.keep(already_done)
            self._trackers.open(step)
        self._progress.begin(self._total_steps, step)
        self._clock = Clock(self._total_steps, step)
        self._begun = step

    def add(self, names: tuple[str, ...], values: Tensor) -> None:
        """One part of a step: the losses `values` [len(names)]."""
        self._means.add(names, values)

    def add_pulls(self, sums: Mapping[str, Tensor]) -> None:
        """How teachers pulled in a step that was watched: see `losses.pulls`."""
        if sums:
            self._pulls.add(tuple(sums), torch.stack(list(sums.values())))

    def finish_step(self, step: int, norm: Tensor, rates: Mapping[str, float]) -> None:
        """The end of a step: the gradient's norm before clipping (0-d), and the learning rates."""
        self._norms.add((_NORM,), norm[None])
        self._progress.advance(step)
        if step % self._config.log_every == 0 or step == self._total_steps:
            self._report(step, rates)
        elif self._progress.is_overdue or step == self._begun + 1:
            pace = self._clock.peek(step, self._config.batch_size)
            self._progress.say(
                f"step {step}/{self._total_steps}  {pace.images_per_second:.1f} images/s  "
                f"{duration(pace.seconds_left)} left"
            )

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count what happens inside as waiting for data."""
        started = time.perf_counter()
        yield
        self._clock.waited += time.perf_counter() - started

    def excluded(self) -> AbstractContextManager[None]:
        """Leave what happens inside (an evaluation, saving) out of the speed."""
        return self._clock.excluded()

    def say(self, text: str) -> None:
        """A message that stays on the screen."""
        self._progress.say(text)

    def say_now_and_then(self, text: str) -> None:
        """A message that a log needs when nothing else comes; a terminal has its bar."""
        self._progress.remark(text)

    def evaluated(self, step: int, metrics: Metrics, source: Split, better: bool) -> None:
        """Write the record of an evaluation, and say its metrics (first process only)."""
        epoch = step / self._steps_per_epoch
        record = {"step": step, "epoch": epoch, "split": source.name, **metrics.to_json()}
        self._write("eval", record)
        values = "  ".join(f"{name} {percent(value)}" for name, value in metrics.values.items())
        images = counted(metrics.n_images, "image")
        self.say(
            f"epoch {epoch:.4g}, {images} of {source.label}, in percent: "
            f"{values}{'  (best so far)' if better else ''}"
        )

    def sync(self) -> None:
        """Make the records durable, as a state is about to be saved that will not repeat them."""
        self._log.sync()

    def publish(self) -> None:
        """Have what is new copied to where the run is wanted, and say what became of it so far."""
        for note in self._folder.publish():
            self.say(note)

    def close(self) -> None:
        """Finish the trackers."""
        if problem := self._trackers.close():
            self.say(f"warning   {problem}")

    def state_dict(self) -> dict[str, Any]:
        """The unfinished interval of this process, on the CPU."""
        return {
            "means": self._means.state_dict(),
            "norms": self._norms.state_dict(),
            "pulls": self._pulls.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over an unfinished interval."""
        self._means.load_state_dict(state["means"], self._runtime.device)
        self._norms.load_state_dict(state["norms"], self._runtime.device)
        if "pulls" in state:
            # earlier versions did not watch
            self._pulls.load_state_dict(state["pulls"], self._runtime.device)

    def _report(self, step: int, rates: Mapping[str, float]) -> None:
        """Write the means since the last record to `metrics.jsonl`, and show them folded."""
        world = self._runtime.world
        pulled = mean_of_ranks(world.gather([self._pulls.take()]))
        means = mean_of_ranks(world.gather([self._means.take() | self._norms.take()]))
        norm = means.pop(_NORM)
        folded = fold(tuple(means), torch.tensor(list(means.values())))
        pace = self._clock.read(step, self._config.batch_size)
        if not world.is_first:
            return
        record = {
            "step": step,
            "epoch": step / self._steps_per_epoch,
            "loss": folded,
            "parts": means,
            _NORM: norm,
            "lr": rates,
            "images_per_second": pace.images_per_second,
            "data_wait": pace.data_wait,
            "seconds_left": pace.seconds_left,
            "memory_gib": peak_memory_gib(self._runtime.device),
        }
        if found := agreements(pulled):
            record["agreement"] = found
        self._write("train", record)
        self._progress.show(
            Status(
                epoch=(step - 1) // self._steps_per_epoch + 1,
                epochs=-(-self._total_steps // self._steps_per_epoch),
                step=step,
                steps=self._total_steps,
                images_per_second=pace.images_per_second,
                data_wait=pace.data_wait,
                seconds_left=pace.seconds_left,
                memory_gib=record["memory_gib"],
                lr=rates.get("head", 0.0),
                losses=folded,
            )
        )

    def _write(self, kind: str, record: Mapping[str, Any]) -> None:
        for problem in (self._log.write(kind, record), self._trackers.log(kind, record)):
            if problem:
                self.say(f"warning   {problem}")
        self.publish()


def mean_of_ranks(everyone: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """By name; one that a rank does not have counts as 0 there."""
    names = dict.fromkeys(name for means in everyone for name in means)
    return {n: sum(each.get(n, 0.0) for each in everyone) / len(everyone) for n in names}


def peak_memory_gib(device: torch.device) -> float:
    """Most memory in use so far, GiB: tensors on a GPU, this process's own on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    # kilobytes on Linux, bytes on macOS
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
