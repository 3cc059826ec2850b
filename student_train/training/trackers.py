"""Experiment trackers behind one small protocol: TensorBoard and Weights & Biases, as extras.

`metrics.jsonl` is always written and is what a run's own commands read; trackers see the same
numbers. A tracker that fails while a run goes on is left out from then on: it must not cost a week
of training.
"""

import json
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from student_train.config import TrainConfig, as_plain
from student_train.errors import ConfigError
from student_train.runs.run_folder import RunFolder

# what a record holds besides measurements
_COORDINATES = frozenset({"kind", "step", "split", "per_class"})


class Tracker(Protocol):
    """Where scalars go."""

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """The scalars of one record."""
        ...

    def close(self) -> None:
        """Everything was logged."""
        ...


class TensorBoard:
    """Event files in RUN/tensorboard; what a former process logged after `step` is hidden."""

    def __init__(self, config: TrainConfig, folder: RunFolder, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # type: ignore[attr-defined]
        except ImportError:
            raise _missing("tensorboard") from None
        self._writer = SummaryWriter(str(folder.root / "tensorboard"), purge_step=step + 1)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """One scalar a chart."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class WeightsAndBiases:
    """A run of `log.project`; resuming goes on with the same one. `log.offline` stays in RUN."""

    def __init__(self, config: TrainConfig, folder: RunFolder, step: int) -> None:
        try:
            import wandb  # type: ignore[import-not-found]
        except ImportError:
            raise _missing("wandb") from None
        self._run = wandb.init(
            project=config.log.project,
            name=folder.place.name,
            id=_wandb_id(folder),
            dir=str(folder.root),
            config=as_plain(config),
            resume="allow",
            mode="offline" if config.log.offline else None,
        )

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """All scalars of the step at once."""
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        """Finish the upload."""
        self._run.finish()


def _wandb_id(folder: RunFolder) -> str:
    """The id under which W&B knows this run folder, made up once."""
    path = folder.root / "wandb.json"
    if not path.exists():
        path.write_text(json.dumps({"id": secrets.token_hex(6)}) + "\n", encoding="utf-8")
    return str(json.loads(path.read_text(encoding="utf-8"))["id"])


def _missing(name: str) -> ConfigError:
    return ConfigError(
        [
            f"log.to={name} needs the package {name}, which is not installed: "
            f"pip install 'teach-detr[{name}]', or leave it out of log.to"
        ]
    )


KINDS = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


class Trackers:
    """All trackers that a configuration asks for."""

    def __init__(self, config: TrainConfig, folder: RunFolder) -> None:
        self._config = config
        self._folder = folder
        self._open: dict[str, Tracker] = {}

    def open(self, step: int) -> None:
        """Start them, at `step`.

        Raises:
            ConfigError: the package of one is not installed; the message names the extra.
        """
        for name in self._config.log.to:
            self._open[name] = KINDS[name](self._config, self._folder, step)

    def log(self, kind: str, record: Mapping[str, Any]) -> str:
        """Hand a record to all of them; a sentence about those that failed, "" otherwise."""
        scalars = {
            f"{kind}/{name}": value
            for name, value in flat_scalars(record)
            if name.split("/")[0] not in _COORDINATES
        }
        problems = []
        for name, tracker in list(self._open.items()):
            try:
                tracker.log(int(record["step"]), scalars)
            except Exception as error:
                del self._open[name]
                problems.append(f"{name} failed and is left out from now on: {error}")
        return "; ".join(problems)

    def close(self) -> str:
        """Finish them; a sentence about those that failed, "" otherwise."""
        problems = []
        for name, tracker in self._open.items():
            try:
                tracker.close()
            except Exception as error:
                problems.append(f"{name} could not finish: {error}")
        self._open = {}
        return "; ".join(problems)


def flat_scalars(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a record by path: `loss/total`, `lr/head`, `AP`."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from flat_scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield prefix + name, float(value)
