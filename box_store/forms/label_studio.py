"""Label Studio's own JSON: a list of tasks, as its documentation of the format has it.

A task without an annotation is an image that nobody has looked at; a prediction is a guess. Its
short form (JSON-MIN) is read too.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from box_store.coco.document import read_document
from box_store.coco.rows import Box, Problems
from box_store.errors import DataError
from box_store.forms.at_once import ALL, Classes, Labelled, assemble, by_folder, size_of
from box_store.forms.guesses import OPTION, Guesses
from box_store.forms.protocol import Form, Options, Reading
from box_store.forms.tree import IMAGE_SUFFIXES, Tree, parent, suffix

_TYPES = ("rectanglelabels", "rectangle")
# percent of an image; more is no number that is meant
_LARGEST = 1e9
# what an upload puts before the name of a file
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")


def _recognise(tree: Tree) -> str | None:
    files = _files(tree)
    return ", ".join(files[:3]) + (", ..." if len(files) > 3 else "") if files else None


def _files(tree: Tree) -> list[str]:
    return [path for path in tree.few("json") if _is_tasks(tree, path)]


def _is_tasks(tree: Tree, path: str) -> bool:
    head = tree.head(path).replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
    if not head.startswith(b"["):
        return False
    tasks = b'"data"' in head and (b'"annotations"' in head or b'"predictions"' in head)
    return tasks or b'"rectanglelabels"' in head


@dataclass
class _Task:
    """One task: its regions, and whether a person made them."""

    where: str
    regions: list[Any]
    labelled: bool


@dataclass
class _Reader:
    """Tasks to boxes."""

    tree: Tree
    guesses: Guesses
    classes: Classes = field(default_factory=Classes)
    tasks: dict[str, _Task] = field(default_factory=dict)
    splits: dict[str, list[str]] = field(default_factory=dict)

    def add(self, path: str, at: int, task: Any, problems: Problems) -> None:
        """Find the image of a task, and the annotation that counts."""
        where = f"{path} task {task.get('id', at) if isinstance(task, dict) else at}"
        if not isinstance(task, dict):
            problems.note("task not readable", f"{where}: no object")
            return
        told = task.get("data")
        data = told if isinstance(told, dict) else task
        names = list(_names(task, data))
        here = parent(path)
        spots = (self.tree.find_image(name, here, f"{here}/images".strip("/")) for name in names)
        found = next((spot for spot in spots if spot is not None), None)
        if found is None:
            missing = self.tree.missing(names[-1]) if names else "no image in its data"
            problems.note("image missing", f"{where}: {missing}")
            return
        if found[0] in self.tasks:
            problems.note("two tasks of one image", f"{found[0]}: {self.tasks[found[0]].where}")
            return
        self.tasks[found[0]] = self._task(where, task, problems)
        split = data.get("split")
        self.splits.setdefault(split if isinstance(split, str) else "", []).append(found[0])

    def _task(self, where: str, task: dict[str, Any], problems: Problems) -> _Task:
        if not isinstance(task.get("data"), dict):
            # the short form: a list of boxes under the name of the labels, of the last annotation
            regions = [v for v in task.values() if isinstance(v, list) and v]
            return _Task(where, regions[0] if regions else [], "annotator" in task or bool(regions))
        done = [a for a in task.get("annotations") or [] if _finished(a)]
        if len(done) > 1:
            problems.note("several annotations of an image, the latest is taken", where)
        if done:
            latest = max(done, key=lambda a: str(a.get("updated_at") or a.get("created_at") or ""))
            return _Task(where, latest["result"], labelled=True)
        guessed = [p for p in task.get("predictions") or [] if _finished(p)]
        kept: list[Any] = []
        for prediction in guessed:
            for number, region in enumerate(prediction["result"], 1):
                if not self.guesses.drop(f"{where} region {number}", problems):
                    kept.append(region)
        return _Task(where, kept, labelled=self.guesses.keep and bool(guessed))

    def read(self, image: str, problems: Problems) -> Labelled | None:
        task = self.tasks[image]
        size = _size(task.regions) or size_of(self.tree, image, problems)
        if size is None:
            return None
        boxes: list[Box] = []
        for number, region in enumerate(task.regions, 1):
            found = _box(region, size, self.describe(image, number), problems)
            if found is not None:
                label, box, crowd = found
                position = self.classes.position(label)
                assert position is not None
                boxes.append((position, box, number, crowd))
        return Labelled(*size, boxes, not task.labelled)

    def describe(self, image: str, number: int) -> str:
        return f"{self.tasks[image].where} region {number}"


def _finished(row: Any) -> bool:
    """Whether it holds a result; one that was skipped says nothing."""
    whole = isinstance(row, dict) and isinstance(row.get("result"), list)
    return whole and not row.get("was_cancelled")


def _names(task: dict[str, Any], data: dict[str, Any]) -> Iterator[str]:
    """What the image of a task may be called, best guess first."""
    values = [data.get("file_name"), data.get("image"), task.get("file_upload"), *data.values()]
    for value in values:
        if not isinstance(value, str) or suffix(value.partition("&")[0]) not in IMAGE_SUFFIXES:
            continue
        yield value
        name = value.rpartition("/")[2]
        if _UPLOADED.match(name):
            yield _UPLOADED.sub("", name)


def _size(regions: list[Any]) -> tuple[int, int] | None:
    for region in regions:
        if isinstance(region, dict):
            size = (region.get("original_width"), region.get("original_height"))
            if all(isinstance(side, int) and 0 < side < 2**31 for side in size):
                return size  # type: ignore[return-value]
    return None


def _box(
    region: Any, size: tuple[int, int], where: str, problems: Problems
) -> tuple[str, tuple[float, float, float, float], bool] | None:
    """Label, box and whether it is a crowd; None, with a note, if it is no upright box."""
    if not isinstance(region, dict):
        problems.note("not a box", where)
        return None
    told = region.get("value")
    value = told if isinstance(told, dict) else region
    kind = region.get("type")
    if kind is not None and kind not in _TYPES:
        if kind not in ("labels", "choices", "textarea", "rating"):
            problems.note("shape that is no box", f"{where}: {kind}")
        return None
    labels = value.get("rectanglelabels")
    if not isinstance(labels, list) or not labels or not isinstance(labels[0], str):
        problems.note("object without a class", where)
        return None
    if len(labels) > 1:
        problems.note("several classes of one box, the first is taken", f"{where}: {labels}")
    found = [value.get(key) for key in ("x", "y", "width", "height")]
    numbers = [float(n) for n in found if isinstance(n, int | float) and abs(n) < _LARGEST]
    if len(numbers) != len(found):
        problems.note("not a box", f"{where}: {found}")
        return None
    if value.get("rotation"):
        problems.note("oriented box", f"{where}: turned by {value['rotation']} degrees")
        return None
    x, y, width, height = (n * side / 100 for n, side in zip(numbers, (*size, *size), strict=True))
    meta = region.get("meta")
    words = meta.get("text") if isinstance(meta, dict) else None
    return labels[0].strip(), (x, y, width, height), isinstance(words, list) and "crowd" in words


def _read(tree: Tree, options: Options) -> Reading:
    reader, problems = _Reader(tree, Guesses.of(options)), Problems()
    for path in _files(tree):
        try:
            tasks = read_document(tree.root / path)
        except DataError as error:
            problems.note("annotation file not readable", str(error))
            continue
        for at, task in enumerate(tasks if isinstance(tasks, list) else [], 1):
            reader.add(path, at, task, problems)
    if not reader.tasks:
        why = next(iter(problems.examples.values()), ("no task with an image",))[0]
        raise DataError(f"{tree.place}: no image of the tasks is there ({why})")
    named = any(reader.splits) and list(reader.splits) != [""]
    members = (
        {name or ALL: paths for name, paths in reader.splits.items()}
        if named
        else by_folder(list(reader.tasks))
    )
    first = next(iter(members))
    return assemble(tree, members, reader.read, reader.classes, reader.describe, {first: problems})


FORM = Form("label-studio", "Label Studio", _recognise, _read, OPTION)
