"""Pushing beside the training, over a network that fails."""

import threading

from student_train.runs.publisher import Publisher


class Network:
    """Fails as often as it is told, and counts."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.tries = 0
        self.reached = threading.Event()

    def push(self) -> None:
        self.tries += 1
        self.reached.set()
        if self.tries <= self.failures:
            raise OSError("the network is gone")


def test_what_was_asked_for_is_pushed_before_the_end() -> None:
    network = Network(0)
    publisher = Publisher(network.push)
    assert publisher.ask() == []
    assert publisher.finish() == ""
    assert network.tries == 1


def test_nothing_is_pushed_where_nothing_was_asked_for() -> None:
    network = Network(0)
    assert Publisher(network.push).finish() == ""
    assert network.tries == 0


def test_a_failure_is_said_once_tried_again_and_its_end_said() -> None:
    network = Network(2)
    publisher = Publisher(network.push, first_delay_s=0.01)
    publisher.ask()
    notes: list[str] = []
    while len(notes) < 2:
        network.reached.wait()
        network.reached.clear()
        notes += publisher.ask()
    assert notes == [
        "warning   the network is gone; training goes on, and this is tried again",
        "the copy at the URL is up to date again",
    ]
    assert publisher.finish() == ""


def test_the_end_waits_for_a_network_that_comes_back_and_not_for_ever() -> None:
    back = Network(1)
    publisher = Publisher(back.push, first_delay_s=0.01)
    publisher.ask()
    assert publisher.finish() == ""
    assert back.tries == 2
    gone = Network(1_000_000)
    publisher = Publisher(gone.push, patience_s=0.05, first_delay_s=0.01)
    publisher.ask()
    assert publisher.finish() == "the network is gone"
    assert 1 < gone.tries < 10
