"""The commands in README and docs exist, with the options and the presets that they name."""

import re
import shlex
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = {
    "teacher-infer": "teacher_infer.cli",
    "student-train": "student_train.cli",
    "teach-detr": "teach_detr.cli",
}


def commands():
    """(page, command line) of every program call in a fenced block; `\\` continues a line."""
    for page in PAGES:
        for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            for line in block.replace("\\\n", " ").splitlines():
                if line.split(" ")[0] in PROGRAMS and not re.search(r"\.\.\.|\||^\S+ +→", line):
                    yield pytest.param(page, line, id=f"{page.name}:{line[:60]}")


@pytest.mark.parametrize(("page", "line"), list(commands()))
def test_a_documented_command_exists_with_its_options(page: Path, line: str) -> None:
    module = pytest.importorskip(PROGRAMS[line.split(" ")[0]])
    words = shlex.split(line, comments=True)
    group = typer.main.get_command(module.app)
    context = group.make_context(words[0], list(words[1:]), resilient_parsing=True)
    _, command, rest = group.resolve_command(context, words[1:])
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    used = {word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
    assert used <= known, f"{page.name}: {line}\nunknown: {sorted(used - known)}"
    if "--preset" in rest:
        from student_train.presets import all_presets

        assert rest[rest.index("--preset") + 1] in all_presets()


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
