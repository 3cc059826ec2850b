"""The training loop: steps, evaluations, saved states, and stopping cleanly for whatever reason."""

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from student_train.checkpoint import load_state, save_state, save_weights
from student_train.config import TrainConfig, as_plain
from student_train.data import Batch
from student_train.errors import CheckpointError, Interrupted, NonFiniteLoss
from student_train.evaluate import Evaluation, evaluate_model
from student_train.inputs import Inputs
from student_train.interrupt import StopRequest
from student_train.losses import Criterion, Losses, NonFinitePrediction, fold
from student_train.metrics import Clock, MetricsLog, RunningMeans
from student_train.optim import WeightAverage, clip_gradients, lr_factor, make_optimizer, set_lr
from student_train.progress import ProgressLine, Status
from student_train.run_folder import RunFolder, class_space_to_plain
from student_train.runtime import Runtime


@dataclass
class Position:
    """Where a run stands."""

    step: int = 0
    """steps done"""
    evaluated_step: int = -1
    """the last step whose weights were evaluated"""
    best: float = -1.0
    """AP of the best evaluation so far, in 0..1; -1 before the first"""


class Trainer:
    """One run. `train()` goes from wherever the state stands to the end."""

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        inputs: Inputs,
        folder: RunFolder,
        runtime: Runtime,
        progress: ProgressLine,
    ) -> None:
        self.config = config
        self.inputs = inputs
        self.folder = folder
        self.runtime = runtime
        self.progress = progress
        self.model = model.to(runtime.device)
        self.optimizer = make_optimizer(self.model, config.optim, runtime.device)
        decay = config.optim.ema
        self.average = WeightAverage(self.model, decay) if decay is not None else None
        self.criterion = Criterion(config.loss)
        self.position = Position()
        self.evaluation: Evaluation | None = None
        self.wrapped: nn.Module = self.model
        if runtime.world.size > 1:
            gpus = [runtime.device.index] if runtime.device.type == "cuda" else None
            self.wrapped = DistributedDataParallel(self.model, device_ids=gpus)
        self.steps_per_epoch = inputs.steps_per_epoch
        self.total_steps = config.epochs * self.steps_per_epoch
        if config.steps is not None:
            self.total_steps = min(self.total_steps, config.steps)
        self._trainable = [p for p in self.model.parameters() if p.requires_grad]
        self._log = MetricsLog(folder.metrics)
        self._means = RunningMeans()
        self._norms = RunningMeans()

    def resume(self) -> str:
        """Take over the newest saved state; a note if that was not the last one written.

        Raises:
            CheckpointError: there is no readable state, or it does not fit the configuration.
        """
        state, note = load_state(self.folder.checkpoints)
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.position = Position(**state["position"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"the saved state does not fit this configuration: {error}"
            ) from error
        return note

    def save(self) -> None:
        """Write `last.pt` (first process only)."""
        if self.runtime.world.is_first:
            save_state(
                self.folder.checkpoints,
                {
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "average": self.average.state_dict() if self.average is not None else None,
                    "position": dict(vars(self.position)),
                    "config": as_plain(self.config),
                },
            )

    def train(self) -> Evaluation | None:
        """Train to the end; the last evaluation, None where there was none.

        Raises:
            NonFiniteLoss: the loss became NaN or infinite; the state before that step was saved.
            Interrupted: Ctrl-C or SIGTERM; the state was saved.
        """
        at = self.position
        if self.runtime.world.is_first:
            self._log.keep(self._already_done)
        self.progress.begin(self.total_steps, at.step)
        clock = Clock(self.total_steps, at.step)
        with StopRequest() as stop:
            self._evaluate_if_due(clock)
            for batches in self._batches():
                rates = set_lr(
                    self.optimizer,
                    lr_factor(self.config.optim, at.step, self.steps_per_epoch, self.total_steps),
                )
                signal_number = self._step(batches, stop)
                at.step += 1
                self.progress.advance(at.step)
                is_last = at.step == self.total_steps
                if at.step % self.config.log_every == 0 or is_last:
                    self._report(clock, rates)
                if signal_number:
                    self._stop_for(signal_number)
                if is_last or at.step % self.config.save_every == 0 or self._evaluation_due():
                    with clock.excluded():
                        self.save()
                self._evaluate_if_due(clock)
        if self.inputs.validation is None:
            self._save_best()
        self.save()
        return self.evaluation

    def _already_done(self, record: Mapping[str, Any]) -> bool:
        """Whether a record of an earlier process describes something this one will not do again."""
        done = self.position.step
        if record.get("kind") == "eval":
            done = self.position.evaluated_step
        return record.get("step", 0) <= done

    def _batches(self) -> Iterator[list[Batch]]:
        """The parts of each step that is left, across epochs, in the order that the seed fixes."""
        n_parts = self.config.optim.accumulate
        while self.position.step < self.total_steps:
            epoch, done = divmod(self.position.step, self.steps_per_epoch)
            batches = self.inputs.train_batches(epoch, done * n_parts)
            for _ in range(min(self.steps_per_epoch - done, self.total_steps - self.position.step)):
                yield [next(batches) for _ in range(n_parts)]

    def _step(self, batches: list[Batch], stop: StopRequest) -> int:
        """One step of the optimiser over the parts of a batch; the signal to stop for, or 0."""
        self.model.train()
        self.runtime.seed_step(self.config.seed, "step", self.position.step)
        broken = torch.zeros((), device=self.runtime.device)
        seen: list[Losses] = []
        for index, batch in enumerate(batches):
            with self._gradients_wait(index < len(batches) - 1):
                losses = self._losses(batch.to(self.runtime.device))
                (losses.total / len(batches)).backward()
            broken += (~losses.total.detach().isfinite()).float()
            seen.append(losses)
        norm = clip_gradients(self._trainable, self.config.optim.clip)
        broken += (~norm.isfinite()).float()
        # every process must take the same branch; this is the step's one wait for the device
        mine = torch.stack((broken, broken.new_tensor(float(stop.signal_number))))
        n_broken, signal_number = self.runtime.world.max(mine).tolist()
        if n_broken:
            self._stop_non_finite(_broken_parts(seen))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.model)
        for losses in seen:
            self._means.add(losses.names, losses.values)
        self._norms.add(("grad_norm",), norm[None])
        return int(signal_number)

    def _losses(self, batch: Batch) -> Losses:
        epoch = self.position.step / self.steps_per_epoch
        supervisions = self.criterion.supervise(batch.truth, batch.teachers, epoch)
        with self.runtime.autocast():
            output = self.wrapped(batch.images, batch.mask, batch.truth)
        try:
            return self.criterion(output, supervisions)
        except NonFinitePrediction as error:
            self._stop_non_finite(str(error))

    def _gradients_wait(self, wait: bool) -> AbstractContextManager[object]:
        """Let the gradients of all but the last part stay on their own process."""
        if wait and isinstance(self.wrapped, DistributedDataParallel):
            return self.wrapped.no_sync()
        return contextlib.nullcontext()

    def _stop_non_finite(self, what: str) -> NoReturn:
        """Keep the state before this step, unless the forward pass has spoilt it, and stop."""
        kept = all(bool(tensor.isfinite().all()) for tensor in self.model.state_dict().values())
        if kept:
            self.save()
        at, last = self.position.step, self.folder.checkpoints / "last.pt"
        state = f"the state of step {at}" if kept else "the last state saved before it"
        raise NonFiniteLoss(
            f"training diverged at step {at + 1}: {what} {last} is {state}. A lower optim.lr, "
            "optim.warmup_steps or amp=off often help; start the new run with "
            f"--init {self.folder.root}"
        )

    def _stop_for(self, signal_number: int) -> None:
        self.save()
        raise Interrupted(
            f"stopped after step {self.position.step} of {self.total_steps}; the state is saved. "
            f"To go on: student-train train --resume --out {self.folder.root}",
            signal_number,
        )

    def _report(self, clock: Clock, rates: Mapping[str, float]) -> None:
        """Write the means since the last record to `metrics.jsonl`, and show them folded."""
        world = self.runtime.world
        everyone = world.gather([self._means.take() | self._norms.take()])
        names = dict.fromkeys(name for means in everyone for name in means)
        means = {n: sum(each.get(n, 0.0) for each in everyone) / world.size for n in names}
        norm = means.pop("grad_norm")
        folded = fold(tuple(means), torch.tensor(list(means.values())))
        step = self.position.step
        images_per_second, seconds_left = clock.read(step, self.config.batch_size)
        if not world.is_first:
            return
        epoch = (step - 1) / self.steps_per_epoch
        record = {
            "step": step,
            "epoch": step / self.steps_per_epoch,
            "loss": folded,
            "parts": means,
            "grad_norm": norm,
            "lr": rates,
            "images_per_second": images_per_second,
            "seconds_left": seconds_left,
        }
        if self.runtime.device.type == "cuda":
            record["memory_gib"] = torch.cuda.max_memory_allocated(self.runtime.device) / 2**30
        self._log.write("train", record)
        n_epochs = -(-self.total_steps // self.steps_per_epoch)
        lr = rates.get("head", 0.0)
        self.progress.show(
            Status(
                int(epoch) + 1,
                n_epochs,
                step,
                self.total_steps,
                images_per_second,
                seconds_left,
                lr,
                folded,
            )
        )

    def _evaluation_due(self) -> bool:
        step, every = self.position.step, self.config.eval_every
        if self.inputs.validation is None or step == 0 or self.position.evaluated_step == step:
            return False
        if step == self.total_steps:
            return True
        if every <= 0:
            return False
        # the first step of each interval of `every` epochs, which need not be whole steps
        interval = every * self.steps_per_epoch
        return int(step / interval) > int((step - 1) / interval)

    def _evaluate_if_due(self, clock: Clock) -> None:
        validation = self.inputs.validation
        if validation is None or not self._evaluation_due():
            return
        with clock.excluded():
            model = self.model if self.average is None else self.average.model
            self.evaluation = evaluate_model(model, validation, self.runtime)
            if self.runtime.world.is_first:
                self._keep_evaluation(self.evaluation, validation.source.name)
            self.position.evaluated_step = self.position.step

    def _keep_evaluation(self, evaluation: Evaluation, split: str) -> None:
        epoch = self.position.step / self.steps_per_epoch
        self._log.write(
            "eval",
            {"step": self.position.step, "epoch": epoch, **evaluation.metrics.to_json()},
        )
        evaluation.write(self.folder.results, split)
        ap = evaluation.metrics.AP
        values = "  ".join(
            f"{name} {'-' if value is None else f'{value:.3f}'}"
            for name, value in evaluation.metrics.values.items()
        )
        better = self.position.best < (ap or 0.0)
        self.progress.say(
            f"epoch {epoch:.4g}, {evaluation.metrics.n_images} images of {split}: "
            f"{values}{'  (best so far)' if better else ''}"
        )
        if better or not self.folder.best.exists():
            self.position.best = max(self.position.best, ap or 0.0)
            self._save_best()

    def _save_best(self) -> None:
        """Write the weights that are evaluated, with all that is needed to use them."""
        if not self.runtime.world.is_first:
            return
        model = self.model if self.average is None else self.average.model
        about = {
            "config": as_plain(self.config),
            "classes": class_space_to_plain(self.inputs.class_space),
            "step": self.position.step,
            "metrics": self.evaluation.metrics.values if self.evaluation else {},
        }
        save_weights(self.folder.best, model.state_dict(), about)


def _broken_parts(seen: list[Losses]) -> str:
    """Which parts of a step's losses are not finite."""
    parts = [name for losses in seen for name, v in losses.parts.items() if not v.isfinite()]
    if not parts:
        return "the gradient is not finite, though the losses are."
    return f"not finite are {', '.join(dict.fromkeys(parts))}."
