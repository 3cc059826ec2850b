"""What can go wrong while configuring, training and evaluating a student.

::

    TeachDetrError                     (box_store.errors; exit code 1)
    ├── UsageError                     (exit code 2)
    │   ├── ConfigError                one or more settings are wrong; lists all of them
    │   └── InputSizeError             images whose sides the student cannot take
    ├── RunError                       the run folder exists already, is missing, or does not fit
    ├── CheckpointError                a weights or checkpoint file cannot be read or does not fit
    ├── ExportError                    a student has no form in another format, or came out wrong
    ├── NonFiniteLoss                  a loss became NaN or infinite; names the step and the parts
    ├── LoaderDied                   a process that loads images is gone; the state was saved
    ├── PeerLost                     another process of the run is gone; what could be was saved
    └── Interrupted                    Ctrl-C or SIGTERM; the state was saved (exit code 130 or 143)
"""

from collections.abc import Sequence

from box_store.errors import TeachDetrError, UsageError


class ConfigError(UsageError):
    """Settings that cannot be used; `problems` holds a sentence each, all reported at once."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            text = self.problems[0]
        else:
            lines = "".join(f"\n  - {problem}" for problem in self.problems)
            text = f"{len(self.problems)} settings cannot be used:{lines}"
        super().__init__(text)


class InputSizeError(UsageError):
    """Images whose height or width is no multiple of what a student needs."""

    def __init__(self, size: tuple[int, int], multiple: int) -> None:
        super().__init__(
            f"images are {size[0]} x {size[1]} px (height x width), and this student needs sides "
            f"that are multiples of {multiple}: squash images to such a size, or pad batches with "
            f"data.pad_to={multiple}"
        )


class RunError(TeachDetrError):
    """A run folder that is missing, exists already, or does not fit what was asked."""


class CheckpointError(TeachDetrError):
    """A checkpoint or weights file that cannot be read, or holds something else."""


class ExportError(TeachDetrError):
    """A student that cannot be written in another format, or whose file detects something else."""


class NonFiniteLoss(TeachDetrError):
    """The loss became NaN or infinite; the weights before that step were kept."""


class LoaderDied(TeachDetrError):
    """A process that loads images ended on its own, or was ended."""


class PeerLost(TeachDetrError):
    """Another of the processes that train together ended, or cannot be reached any more."""


class Interrupted(TeachDetrError):
    """The run was asked to stop and saved its state. `exit_code` is 128 + the signal's number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
