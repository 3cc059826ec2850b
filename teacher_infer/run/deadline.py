"""Waiting for files no longer than is told: a dead network mount answers no read, and no error."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from math import inf
from threading import Thread
from typing import TypeVar

from teacher_infer.adapters.protocol import AdapterError
from teacher_infer.teachers.spec import TeacherSpec

T = TypeVar("T")


def too_slow(spec: TeacherSpec, what: str) -> AdapterError:
    """What is said of a teacher whose `what` took longer than its limit."""
    return AdapterError(
        f"teacher {spec.name}: {what} took longer than {spec.load_limit_s:g} s: see whether the "
        f"disk or network mount that holds {spec.model} answers. load_timeout=SECONDS changes the "
        "limit, load_timeout=none waits for ever"
    )


def in_time(spec: TeacherSpec, what: str, read: Callable[[], T]) -> T:
    """What `read` returns or raises, if it does within the teacher's load limit.

    Raises:
        AdapterError: it did not. It is left behind in a thread that does not keep the process.
    """
    if spec.load_limit_s == inf:
        return read()
    result: Future[T] = Future()

    def work() -> None:
        try:
            result.set_result(read())
        except BaseException as error:
            result.set_exception(error)

    Thread(target=work, name=what, daemon=True).start()
    with suppress(TimeoutError):
        # one that `read` itself raises comes out below
        return result.result(spec.load_limit_s)
    if result.done():
        return result.result()
    raise too_slow(spec, what)
