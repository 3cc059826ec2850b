"""A bare folder of photos: nothing to learn from, all to be labelled."""

from box_store.coco.rows import Problems
from box_store.forms.at_once import Classes, Labelled, assemble, by_role, size_of
from box_store.forms.protocol import Form, Options, Reading
from box_store.forms.tree import Tree


def _recognise(tree: Tree) -> str | None:
    if tree.file is not None or not tree.images:
        return None
    return f"{len(tree.images)} images without annotations"


def _read(tree: Tree, options: Options) -> Reading:
    def read(path: str, found: Problems) -> Labelled | None:
        size = size_of(tree, path, found)
        return None if size is None else Labelled(*size)

    reading = assemble(
        tree, by_role(tree.images), read, Classes(closed=True), lambda path, number: path
    )
    reading.labelled = False
    others = list(tree.files("xml", "json", "csv", "txt", "parquet", "yaml", "mat", "tfrecord"))
    if others:
        reading.notes.append(
            f"{len(others)} other files are of no form that is read, such as {others[0]}: if they "
            "hold labels, export these as COCO, YOLO or Pascal VOC"
        )
    return reading


FORM = Form("photos", "a folder of photos", _recognise, _read)
