"""The file of a run, with the reason of every choice as a comment."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from box_store.forms.opening import DataSet
from teach_detr.first_run.proposal import Machine, Proposal
from teach_detr.first_run.teacher import Looked


def as_toml(
    data: DataSet,
    splits: tuple[str, str | None],
    teachers: Sequence[Looked],
    proposal: Proposal,
    machine: Machine,
    out: Path,
) -> str:
    """What `teach-detr run` reads. splits: of training, and of evaluation where there is one."""
    return "\n".join(_lines(data, splits, teachers, proposal, machine, out)) + "\n"


def _lines(
    data: DataSet,
    splits: tuple[str, str | None],
    teachers: Sequence[Looked],
    proposal: Proposal,
    machine: Machine,
    out: Path,
) -> Iterator[str]:
    train, val = splits
    yield f"# {_bare(data.summary)}"
    for note in data.notes:
        yield f"# {_bare(note)}"
    yield f"out = {_text(str(out))}"
    yield "baseline = true                 # also train without teachers, to compare"
    yield ""
    yield "[data]"
    yield f"root = {_text(str(data.place.absolute()))}"
    yield f"train_split = {_text(train)}"
    if val is None:
        yield 'val_split = "none"              # there is none; to have one:'
        yield f"#   teach-detr data {_bare(str(data.place))} --out NEW --val 0.2"
    else:
        yield f"val_split = {_text(val)}"
    for looked in teachers:
        yield from _teacher(looked)
    if not teachers:
        yield ""
        yield "# a table for each teacher; `teacher-infer list` says what can be one"
        yield "# [teachers.yolox]"
        yield '# adapter = "onnx"'
        yield '# model = "yolox_nano.onnx"'
    yield ""
    yield "[student]"
    yield f"preset = {_text(proposal.preset)}   # {proposal.reason}; this machine has {machine}"
    yield "[student.settings]"
    for key, value in proposal.settings.items():
        yield f"{_text(key)} = {json.dumps(value)}   # {proposal.reasons[key]}"
    yield f"# {proposal.steps:,} steps"


def _teacher(looked: Looked) -> Iterator[str]:
    spec = looked.spec
    yield ""
    yield f"[teachers.{_text(spec.name)}]"
    yield f"# {_bare(looked.classes.summary())}"
    if looked.seconds is not None:
        yield f"# {looked.seconds:.2f} s an image on one core here"
    yield f"adapter = {_text(spec.adapter)}"
    path = Path(spec.model)
    yield f"model = {_text(str(path.absolute()) if path.exists() else spec.model)}"
    for key, value in spec.options.items():
        yield f"{key} = {_text(value)}"
    if spec.licence:
        yield f"licence = {_text(spec.licence)}"
    if spec.class_map:
        yield f"[teachers.{_text(spec.name)}.map]"
        for theirs, ours in spec.class_map.items():
            note = "   # proposed by a list of words: is it?" if theirs in looked.proposed else ""
            yield f"{_text(theirs)} = {_text(str(ours))}{note}"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _bare(text: str) -> str:
    return " ".join(text.split())
