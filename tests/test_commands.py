"""All commands of all command lines: what every one of them offers, and how their help reads."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

TOOLS = {
    "teacher-infer": "teacher_infer.cli",
    "student-train": "student_train.cli",
    "teach-detr": "teach_detr.cli",
}


def app_of(tool: str) -> typer.Typer:
    return import_module(TOOLS[tool]).app


def commands() -> Iterator[tuple[str, str, Any]]:
    for tool in TOOLS:
        group: Any = typer.main.get_command(app_of(tool))
        for name, command in group.commands.items():
            yield tool, name, command


def options(command: Any) -> dict[str, Any]:
    return {text: param for param in command.params for text in param.opts}


def test_every_command_has_json() -> None:
    found = {(tool, name): options(command) for tool, name, command in commands()}
    assert len(found) > 25
    lacking = [" ".join(key) for key, known in found.items() if "--json" not in known]
    assert lacking == []
    # a switch, in the same words everywhere of one tool
    for tool in TOOLS:
        helps = {known["--json"].help for (of, _), known in found.items() if of == tool}
        assert len(helps) == 1, helps
    assert all(known["--json"].is_flag for known in found.values())


def test_every_command_and_option_explains_itself() -> None:
    for tool, name, command in commands():
        assert (command.help or "").strip(), f"{tool} {name} has no help"
        for text, param in options(command).items():
            assert getattr(param, "help", None), f"{tool} {name} {text} has no help"


@pytest.mark.parametrize("tool", ["teacher-infer", "teach-detr"])
def test_the_overview_is_a_line_a_command(tool: str) -> None:
    shown = CliRunner().invoke(app_of(tool), ["--help"], terminal_width=80).output.splitlines()
    begun = [line.split() for line in shown if line.strip().startswith(f"{tool} ")]
    group: Any = typer.main.get_command(app_of(tool))
    told = {words[1] for words in begun}
    # what only makers of the shipped weights need is in the list of commands alone
    assert told | {"demo-weights"} >= set(group.commands)
    assert max(map(len, shown)) <= 80


def test_commands_live_in_one_folder() -> None:
    for tool, name, command in commands():
        place = command.callback.__module__
        assert ".commands." in place, f"{tool} {name} is in {place}"
