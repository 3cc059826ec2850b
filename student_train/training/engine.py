"""The training loop: steps, evaluations, saved states, and stopping cleanly for whatever reason."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from box_store.errors import DataError, TeachDetrError, UsageError
from student_train.config import TrainConfig, as_plain
from student_train.data import Batch, prefetch
from student_train.errors import CheckpointError, Interrupted, LoaderDied, NonFiniteLoss, PeerLost
from student_train.evaluation.evaluate import Evaluation, evaluate_model
from student_train.losses import (
    Criterion,
    Losses,
    NonFinitePrediction,
    Supervision,
    Totals,
    pulls,
)
from student_train.machine.compiling import compile_parts
from student_train.machine.distributed import naming_lost_peers
from student_train.machine.interrupt import Stopped, StopRequest
from student_train.machine.relay import relaying
from student_train.machine.runtime import Runtime
from student_train.models import Student, Targets
from student_train.runs.run_folder import RunFolder, class_space_to_plain
from student_train.runs.states import StateFolder
from student_train.training.best import BestWeights, Position
from student_train.training.broken import broken_parts, unusable
from student_train.training.inputs import Inputs
from student_train.training.online import look_all, open_online
from student_train.training.optim import (
    WeightAverage,
    clip_gradients,
    lr_factor,
    make_optimizer,
    set_lr,
    train_what_moves,
)
from student_train.training.progress import ProgressLine
from student_train.training.recorder import Recorder


class Trainer:
    """One run. `train()` goes from wherever the state stands to the end."""

    def __init__(
        self,
        config: TrainConfig,
        model: Student,
        inputs: Inputs,
        folder: RunFolder,
        runtime: Runtime,
        progress: ProgressLine,
    ) -> None:
        self.config = config
        self.inputs = inputs
        self.folder = folder
        self.runtime = runtime
        self.states = StateFolder(folder.checkpoints, config.keep_last)
        self.model = model.to(runtime.device)
        self.optimizer = make_optimizer(self.model, config.optim, runtime.device)
        decay, ramp = config.optim.ema, config.optim.ema_ramp
        self.average = WeightAverage(self.model, decay, ramp) if decay is not None else None
        averaged = self.average.model if self.average is not None else None
        self.online = open_online(config.teachers, averaged, inputs.class_space, runtime)
        self.criterion = Criterion(config.loss)
        self.position = Position()
        self.evaluation: Evaluation | None = None
        compile_parts(self.model, config.compile)
        self.wrapped: nn.Module = self.model
        if runtime.world.size > 1:
            gpus = [runtime.device.index] if runtime.device.type == "cuda" else None
            self.wrapped = DistributedDataParallel(self.model, device_ids=gpus)
        self.steps_per_epoch = inputs.steps_per_epoch
        self.total_steps = config.total_steps(self.steps_per_epoch)
        self._trainable = [p for p in self.model.parameters() if p.requires_grad]
        self._failure = ""
        self.recorder = Recorder(
            config, folder, runtime, progress, self.steps_per_epoch, self.total_steps
        )
        self.best = BestWeights(
            config,
            self.model,
            self.average,
            inputs.class_space,
            folder,
            runtime.world,
            self.recorder,
        )

    def resume(self) -> str:
        """Take over the newest saved state; a note if that was not the last one written.

        Raises:
            CheckpointError: there is no readable state, or it does not fit the configuration.
        """
        state, note = self.states.load()
        world = self.runtime.world
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.position = Position(**state["position"])
            # by rank
            intervals = state["intervals"]
            if len(intervals) == world.size:
                self.recorder.load_state_dict(intervals[world.rank])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"the saved state does not fit this configuration: {error}"
            ) from error
        if state["processes"] != world.size:
            note += (
                f" {state['processes']} processes trained it so far, now {world.size}: going on, "
                "with other random numbers."
            )
        return note.strip()

    def save(self) -> None:
        """Save a state, by the first process; all must call.

        Raises:
            CheckpointError: it cannot be written; the states before it are kept.
        """
        world = self.runtime.world
        intervals = world.gather([self.recorder.state_dict()])
        if world.is_first:
            self._write_state(intervals)

    def _write_state(self, intervals: Sequence[Mapping[str, object]]) -> None:
        self.recorder.sync()
        self.states.save(
            self.position.step,
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average.state_dict() if self.average is not None else None,
                "position": dict(vars(self.position)),
                "intervals": intervals,
                "processes": self.runtime.world.size,
                "config": as_plain(self.config),
                "classes": class_space_to_plain(self.inputs.class_space),
            },
        )
        self.recorder.publish()

    def _save_on_the_way(self) -> None:
        """Save; a disk that is full now need not stay full: training goes on with a warning."""
        try:
            self.save()
        except CheckpointError as error:
            newest = self.states.newest()
            kept = f"{newest.name} stays the newest" if newest else "nothing is saved yet"
            self.recorder.say(f"warning   {error}; {kept}, training goes on and saves again later")

    def train(self) -> Evaluation | None:
        """Train to the end; the last evaluation, None where there was none.

        Raises:
            NonFiniteLoss: the loss became NaN or infinite; the state before that step was saved.
            Interrupted: Ctrl-C or SIGTERM, to any of the processes; the state was saved.
            LoaderDied, DataError: no more batches, on any of the processes; the state was saved.
            PeerLost: another process is gone; the state is saved, if a place for it is left.
        """
        try:
            with naming_lost_peers():
                return self._train()
        except PeerLost as error:
            self._stop_without_peer(error)
        finally:
            self.recorder.close()

    def _train(self) -> Evaluation | None:
        at = self.position
        self.recorder.begin(at.step, at.evaluated_step)
        with StopRequest() as stop, relaying(stop, self.runtime.world):
            self._evaluate_if_due(stop)
            for batches in self._batches(stop):
                self.best.restart_if_due(at, self._epoch)
                rates = set_lr(
                    self.optimizer,
                    lr_factor(self.config.optim, at.step, self.steps_per_epoch, self.total_steps),
                )
                norm = self._step(batches)
                at.step += 1
                self.recorder.finish_step(at.step, norm, rates)
                is_last = at.step == self.total_steps
                if is_last or at.step % self.config.save_every == 0 or self._evaluation_due():
                    with self.recorder.excluded():
                        self._save_on_the_way()
                self._evaluate_if_due(stop)
        if self.inputs.validation is None:
            self.best.save(at.step)
        self.save()
        return self.evaluation

    def _batches(self, stop: StopRequest) -> Iterator[list[Batch]]:
        """The parts of each step that is left, across epochs, in the order that the seed fixes."""
        n_parts = self.config.optim.accumulate
        while self.position.step < self.total_steps:
            epoch, done = divmod(self.position.step, self.steps_per_epoch)
            loaded = self.inputs.train_batches(epoch, done * n_parts)
            batches = prefetch(loaded, self.runtime.device)
            for _ in range(min(self.steps_per_epoch - done, self.total_steps - self.position.step)):
                with self.recorder.waiting():
                    parts = self._wait_for(batches, n_parts, stop)
                yield parts

    def _wait_for(self, batches: Iterator[Batch], n_parts: int, stop: StopRequest) -> list[Batch]:
        """The parts of the next step, once all processes have theirs. Between two steps the state
        is whole: whatever ends the wait leaves it saved.
        """
        parts, obstacle = [], None
        try:
            parts = stop.waiting(lambda: [next(batches) for _ in range(n_parts)])
        except (Stopped, TeachDetrError) as error:
            obstacle = error
        try:
            self.runtime.world.agree(obstacle)
        except Stopped as stopped:
            self._stop_for(stopped.signal_number)
        except TeachDetrError as error:
            self._stop_without_data(error)
        return parts

    def _step(self, batches: list[Batch]) -> Tensor:
        """One step of the optimiser over the parts of a batch; the gradient's norm before clipping
        (0-d).
        """
        device = self.runtime.device
        batches = [batch.to(device, self.config.model.pixels) for batch in batches]
        train_what_moves(self.model)
        self.runtime.seed_step(self.config.seed, "step", self.position.step)
        taught = [look_all(self.online, batch, self._epoch, self.runtime) for batch in batches]
        supervisions = [
            self.criterion.supervise(batch.truth, teachers, self._epoch)
            for batch, teachers in zip(batches, taught, strict=True)
        ]
        # each part is divided by the counts of all of them: the gradient is the whole batch's
        totals = self.criterion.totals(supervisions, device)
        broken = torch.zeros((), device=device)
        seen: list[Losses] = []
        for index, batch in enumerate(batches):
            with self._gradients_wait(index < len(batches) - 1):
                losses = self._losses(batch, taught[index], supervisions[index], totals[index])
                losses.total.backward()
            broken += (~losses.total.detach().isfinite()).float()
            seen.append(losses)
        norm = clip_gradients(self._trainable, self.config.optim.clip)
        broken += (~norm.isfinite()).float()
        # every process must take the same branch; this is the step's one wait for the device
        if self.runtime.world.max(broken).tolist():
            self._stop_non_finite(seen)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.model)
        for losses in seen:
            # parts add up to the step's loss, and the recorder takes means
            self.recorder.add(losses.names, losses.values * len(seen))
        return norm

    @property
    def _epoch(self) -> float:
        return self.position.step / self.steps_per_epoch

    def _losses(
        self,
        batch: Batch,
        teachers: Mapping[str, Sequence[Targets | None]],
        supervisions: Sequence[Supervision],
        totals: Totals,
    ) -> Losses:
        noised = list(self.criterion.denoising_targets(batch.truth, teachers))
        with self.runtime.autocast():
            output = self.wrapped(batch.images, batch.mask, noised)
        try:
            losses = self.criterion(output, supervisions, totals)
            every = self.config.teachers.watch_every
            if every and self.position.step % every == 0:
                self.recorder.add_pulls(pulls(output, losses))
            return losses
        except NonFinitePrediction as error:
            self._failure = (
                f"the student predicted NaN or infinity in {error.where} for "
                f"{self.inputs.train.describe(batch.image_ids[error.image])}."
            )
            # the other processes wait for gradients of this one: send what tells them to stop
            return unusable(output)

    def _gradients_wait(self, wait: bool) -> AbstractContextManager[object]:
        """Let the gradients of all but the last part stay on their own process."""
        if wait and isinstance(self.wrapped, DistributedDataParallel):
            return self.wrapped.no_sync()
        return contextlib.nullcontext()

    def _stop_non_finite(self, seen: Sequence[Losses]) -> NoReturn:
        """Keep the state before this step, unless the forward pass has spoilt it, and stop."""
        # all processes are here, and those that know an image say so first
        failures = [each for each in self.runtime.world.gather([self._failure]) if each]
        what = " ".join(dict.fromkeys(failures)) or broken_parts(seen)
        mine = all(bool(tensor.isfinite().all()) for tensor in self.model.state_dict().values())
        kept = all(self.runtime.world.gather([mine]))
        if kept:
            self.save()
        at, newest = self.position.step, self.states.newest()
        state = f"{newest} holds the weights before it. " if newest else ""
        raise NonFiniteLoss(
            f"training diverged at step {at + 1}: {what} {state}A lower optim.lr, "
            "optim.warmup_steps or amp=off often help; start the new run with "
            f"--init {self.folder.place}"
        )

    def _stop_without_data(self, error: TeachDetrError) -> NoReturn:
        self._save_and_leave()
        kind = LoaderDied if isinstance(error, LoaderDied) else DataError
        raise kind(f"{error}. The state is saved; {self._to_go_on}")

    def _stop_for(self, signal_number: int) -> NoReturn:
        self._save_and_leave()
        raise Interrupted(
            f"stopped after step {self.position.step} of {self.total_steps}; the state is saved. "
            f"T{self._to_go_on[1:]}",
            signal_number,
        )

    def _save_and_leave(self) -> None:
        self.inputs.kill_loaders()
        self.save()
        # torchrun ends all once one has ended
        self.runtime.world.barrier()

    def _stop_without_peer(self, error: PeerLost) -> NoReturn:
        """The first process saves, if it is left; otherwise whoever else has the run's folder."""
        self.inputs.kill_loaders()
        if self.runtime.world.is_first:
            self._write_state([])
        elif self.folder.root == self.folder.place:
            # it is free as soon as the first process has ended
            with contextlib.suppress(UsageError), self.folder.alone():
                if self.states.newest_step() < self.position.step:
                    self._write_state([])
        raise PeerLost(
            f"{error}. The state after step {self.states.newest_step()} is saved; {self._to_go_on}"
            if self.states.exists()
            else f"{error}. No state is saved"
        )

    @property
    def _to_go_on(self) -> str:
        return f"to go on: student-train train --resume --out {self.folder.place}"

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

    def _evaluate_if_due(self, stop: StopRequest) -> None:
        validation = self.inputs.validation
        if validation is None or not self._evaluation_due():
            return
        with self.recorder.excluded():
            model = self.model if self.average is None else self.average.model
            try:
                evaluation = evaluate_model(
                    model, validation, self.runtime, stop, self.recorder.say_now_and_then
                )
            except Stopped as stopped:
                self._stop_for(stopped.signal_number)
            except (LoaderDied, DataError) as error:
                self._stop_without_data(error)
            self.evaluation = evaluation
            if self.runtime.world.is_first:
                self.best.keep(self.position, evaluation, validation.source)
            self.position.evaluated_step = self.position.step
