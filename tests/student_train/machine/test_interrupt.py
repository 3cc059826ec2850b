"""Stopping when asked to: the first signal leaves a note, the second one acts."""

import os
import signal
import threading
import time

import pytest

from student_train.errors import LoaderDied
from student_train.machine.interrupt import Stopped, StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_note(number: int):
    former = signal.getsignal(number)
    with StopRequest() as stop:
        assert stop.signal_number == 0
        os.kill(os.getpid(), number)
        assert stop.signal_number == number
    assert signal.getsignal(number) is former


def test_a_second_ctrl_c_interrupts_at_once():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal_number == signal.SIGTERM


def test_another_thread_leaves_the_handlers_alone():
    former = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with StopRequest():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [former]


def test_a_signal_ends_a_wait_and_none_is_lost():
    with StopRequest() as stop:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(Stopped) as caught:
            stop.waiting(lambda: time.sleep(30))
        assert caught.value.signal_number == signal.SIGTERM
        # and the next wait does not begin
        with pytest.raises(Stopped):
            stop.waiting(lambda: time.sleep(30))


def test_readers_that_catch_everything_do_not_catch_the_end_of_a_wait():
    def read() -> str:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception:
            return "a damaged image"
        return "read"

    with StopRequest() as stop, pytest.raises(Stopped):
        stop.waiting(read)


def test_a_loader_that_died_of_the_signal_is_the_signal():
    def wait() -> None:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        raise LoaderDied("a loader died")

    with StopRequest() as stop:
        with pytest.raises(Stopped):
            stop.waiting(wait)
        # a scheduler's second signal in the same moment is the same request
        os.kill(os.getpid(), signal.SIGTERM)
