"""A bare folder of photos: nothing to learn from, all to be labelled."""

from pathlib import Path

from box_store.coco.rows import Problems
from box_store.forms.at_once import Classes, Labelled, assemble, by_role, size_of
from box_store.forms.protocol import Form, Options, Reading
from box_store.forms.tree import Tree
from box_store.places.text import lines_of

_OTHERS = ("xml", "json", "jsonl", "csv", "txt", "parquet", "arrow", "yaml", "mat", "tfrecord")


def _recognise(tree: Tree) -> str | None:
    if tree.file is not None or not tree.images:
        return None
    return f"{len(tree.images)} images without annotations"


def _read(tree: Tree, options: Options) -> Reading:
    def read(path: str, found: Problems) -> Labelled | None:
        size = size_of(tree, path, found)
        return None if size is None else Labelled(*size)

    classes = _classes(options.get("classes", ""))
    reading = assemble(
        tree, by_role(tree.images), read, Classes(classes, closed=True), lambda path, number: path
    )
    reading.labelled = False
    others = list(tree.files(*_OTHERS))
    if others:
        reading.notes.append(
            f"{len(others)} other files are of no form that is read, such as {others[0]}: if they "
            "hold labels, export these as COCO, YOLO or Pascal VOC"
        )
    if not classes:
        reading.notes.append(
            "photos have no classes: name what teachers should find in them, "
            ",classes=names.txt (a name a line) or ,classes=cat:dog behind the path"
        )
    return reading


def _classes(asked: str) -> list[str]:
    """Names from a file, a line each, or between colons. Raises DataError."""
    path = Path(asked)
    is_file = path.suffix == ".txt" or (bool(asked) and path.is_file())
    names = list(lines_of(path)) if is_file else asked.split(":")
    return list(dict.fromkeys(name.strip() for name in names if name.strip()))


FORM = Form(
    "photos",
    "a folder of photos",
    _recognise,
    _read,
    {"classes": "what teachers should find: a file with a name a line, or names between colons"},
)
