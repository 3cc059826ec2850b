"""Counting what tests do to files and processes, and what came of it: `make robustness` prints it.

A test takes the fixture `tally` and counts each fault with its outcome; the summary of a run of
pytest, in one process or several, adds them up. `--tally FILE` writes the same as JSON.
"""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest


class Tally:
    """By kind of fault: how often each outcome was seen."""

    def __init__(self) -> None:
        self.seen: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, fault: str, outcome: str, n: int = 1) -> None:
        self.seen[fault][outcome] += n

    def merge(self, plain: dict[str, dict[str, int]]) -> None:
        for fault, outcomes in plain.items():
            self.seen[fault].update(outcomes)

    def plain(self) -> dict[str, dict[str, int]]:
        return {fault: dict(outcomes) for fault, outcomes in sorted(self.seen.items())}


_KEY = pytest.StashKey[Tally]()


def of(config: pytest.Config) -> Tally:
    return config.stash.setdefault(_KEY, Tally())


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    return of(pytestconfig)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tally", type=Path, metavar="FILE", help="write counted faults as JSON")


def pytest_sessionfinish(session: pytest.Session) -> None:
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["tally"] = of(session.config).plain()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """One of several processes has ended, and says what it counted."""
    of(node.config).merge(getattr(node, "workeroutput", {}).get("tally", {}))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    found = of(config).plain()
    if not found:
        return
    terminalreporter.section("faults tried, and what came of them")
    for fault, outcomes in found.items():
        listed = ", ".join(f"{outcome} {n}" for outcome, n in sorted(outcomes.items()))
        terminalreporter.write_line(f"{sum(outcomes.values()):6d}  {fault}: {listed}")
    if path := config.getoption("--tally"):
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
