"""The file of a run, with the reason of every choice as a comment."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from box_store.forms.opening import DataSet
from teach_detr.first_run.proposal import Machine, Proposal
from teach_detr.first_run.teacher import Looked
from teacher_infer.teachers.parsing import as_argument, pairs_of


def toml_lines(
    data: DataSet,
    splits: tuple[str, str | None],
    teachers: Sequence[Looked],
    proposal: Proposal,
    machine: Machine,
    out: Path,
) -> Iterator[str]:
    """Lines of what `teach-detr run` reads. splits: of training, and of evaluation, if any."""
    train, val = splits
    yield f"# {_bare(data.summary)}"
    for note in data.notes:
        yield f"# {_bare(note)}"
    yield f"out = {_text(str(out))}"
    yield "baseline = true                 # also train without teachers, to compare"
    yield ""
    yield "[data]"
    place = data.place.absolute() if isinstance(data.place, Path) else data.place
    yield f"root = {_text(str(place))}"
    yield f"train_split = {_text(train)}"
    if val is None:
        yield 'val_split = "none"              # there is none; to have one:'
        yield f"#   teach-detr data {_bare(str(data.place))} --out NEW --val 0.2"
    else:
        yield f"val_split = {_text(val)}"
    for looked in teachers:
        yield from _teacher(looked)
    if not any(looked.knows_any for looked in teachers):
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
    lines = list(_teacher_table(looked))
    if not looked.knows_any:
        yield f"# {_bare(spec.name)} finds none of the classes: say which are which, in its map"
        lines = [f"# {line}" for line in lines]
    yield from lines


def _teacher_table(looked: Looked) -> Iterator[str]:
    spec = looked.spec
    table = f"[teachers.{_text(spec.name)}"
    yield f"{table}]"
    yield f"# {_bare(looked.classes.summary())}"
    if looked.seconds is not None:
        yield f"# {looked.seconds:.2f} s an image on one core here"
    yield f"adapter = {_text(spec.adapter)}"
    path = Path(spec.model)
    yield f"model = {_text(str(path.absolute()) if path.exists() else spec.model)}"
    bare = replace(spec, class_map={}, prompts={}, vocabulary=())
    for key, value in pairs_of(as_argument(bare)):
        yield f"{key} = {_text(value)}"
    if spec.prompts:
        yield f"{table}.prompts]"
        yield from (f"{_text(name)} = {_text(words)}" for name, words in spec.prompts.items())
    if spec.class_map or not looked.knows_any:
        yield f"{table}.map]"
    for theirs, ours in spec.class_map.items():
        note = "   # proposed by a list of words: is it?" if theirs in looked.proposed else ""
        yield f"{_text(theirs)} = {_text(str(ours))}{note}"
    if not looked.knows_any:
        first = next(iter(looked.classes.class_names), "")
        yield f"{_text(first)} = {_text(next(iter(looked.classes.unseen), ''))}"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _bare(text: str) -> str:
    return " ".join(text.split())
