"""What an adapter says of itself: everything about it that is not its own code's to know.

An adapter is one module with a record `ADAPTER = AdapterInfo(...)`, and one line: in `registry`, or
as an entry point of the group `teach_detr.adapters` where it comes with another distribution.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from teacher_infer.adapters.protocol import AdapterSpec, Detector


@dataclass(frozen=True)
class Option:
    """A key that one adapter alone understands: its help, and what holds where it isn't given.

    file: what its value is called where that is a file, whose content is a part of the teacher;
    empty otherwise. words: values that mean something else than a file.
    """

    help: str
    default: str = ""
    file: str = ""
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class AdapterInfo:
    """An adapter: how its teachers are loaded, what they are read from, what people are told.

    load: builds the model on `spec.device`; imports the framework, which nothing else here does.
    weights_files: the files that decide what the teacher predicts, but for those of options, which
        are added for every adapter alike; empty for random weights.
    example: a teacher as `--teacher` takes it. extra: the name in `teach-detr[extra]`, empty where
        nothing further is needed. libraries: the distributions behind it, alternatives separated
        by `|`. models: how a model is named. reads: what kinds of files are read of it.
    model_is_folder: a model may be a folder. isolated: workers are processes of their own, always,
        with Ray or without. uses_torch: it computes with torch, whose threads are bounded for it.
    open_vocabulary: some of its models are told what to look for, and take prompts.
    """

    name: str
    summary: str
    example: str
    licence: str
    load: Callable[[AdapterSpec], Detector]
    weights_files: Callable[[AdapterSpec], list[Path]]
    options: dict[str, Option] = field(default_factory=dict)
    extra: str = ""
    models: tuple[str, ...] = ()
    reads: str = ""
    libraries: tuple[str, ...] = ()
    model_is_folder: bool = False
    isolated: bool = False
    uses_torch: bool = True
    open_vocabulary: bool = False

    @property
    def file_options(self) -> tuple[str, ...]:
        """Keys whose values are files."""
        return tuple(key for key, option in self.options.items() if option.file)

    @property
    def distributions(self) -> list[str]:
        """Every distribution that may be behind it, alternatives too."""
        return [name for alternatives in self.libraries for name in alternatives.split("|")]

    @property
    def is_installed(self) -> bool:
        """Whether nothing that it needs is missing."""
        return None not in self.installed().values()

    def installed(self) -> dict[str, str | None]:
        """The libraries behind it -> the version that is installed, None without it."""
        found: dict[str, str | None] = {}
        for alternatives in self.libraries:
            names = alternatives.split("|")
            versions = {name: _version(name) for name in names}
            name = next((name for name in names if versions[name]), names[0])
            found[name] = versions[name]
        return found


COMMON_OPTIONS = {"licence": Option("licence to record with the boxes (SPDX name)")}

REQUIRED = "required"


def classes_option(default: str, help: str = "") -> Option:
    """The key `classes` of an adapter: a list of class names."""
    text = help or "file of class names: one a line, or a JSON list"
    return Option(text, default, file="file of class names")


def weights_file_option(help: str, *words: str) -> Option:
    """The key `weights` of an adapter: a checkpoint, or one of the words."""
    return Option(help, REQUIRED, file="weights", words=words)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
