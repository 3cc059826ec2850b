"""The exception tree of the whole project.

    TeachDetrError            exit code 1: something is wrong with data, files or a run
    ├── DataError             annotations, images or a results file are not what they should be
    ├── StoreError            the box store cannot be read or written
    │   ├── FormatError       a newer, foreign, truncated or damaged file
    │   ├── FingerprintMismatch   the name holds boxes of another configuration
    │   └── UnknownTeacher    no teacher of that name in this store
    └── UsageError            exit code 2: the request itself makes no sense

Every message says what was expected, what came, and what to do. Command lines print the message
alone and leave with `exit_code`; a traceback therefore always means a defect of ours.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class TeachDetrError(Exception):
    """Anything a user can put right. `exit_code` is what a command line ends with."""

    exit_code: int = 1

    def __reduce__(self) -> tuple[Any, ...]:
        # between processes as it is: constructors take other things than the message they make
        return _as_it_was, (type(self), self.args, vars(self))


def _as_it_was(
    kind: type[TeachDetrError], args: tuple[Any, ...], values: dict[str, Any]
) -> TeachDetrError:
    error = kind.__new__(kind)
    error.args = args
    vars(error).update(values)
    return error


class UsageError(TeachDetrError):
    """The request makes no sense: an unknown key, options that exclude each other."""

    exit_code = 2


class DataError(TeachDetrError):
    """Annotations, images or results that are missing, malformed or contradict each other."""


class StoreError(TeachDetrError):
    """A box store that cannot be read or written."""


class FormatError(StoreError):
    """A file of the store that is newer than this program, foreign, truncated or damaged."""


class FingerprintMismatch(StoreError):
    """A teacher's name already holds boxes that another configuration produced."""


class UnknownTeacher(StoreError):
    """The store holds no teacher of that name."""


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the closest of `known`, or nothing when none is close.

    Begins with a space, so that it can be appended to any sentence.
    """
    names = list(known)
    by_lower = {other.lower(): other for other in names}
    close = get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.5)
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""
