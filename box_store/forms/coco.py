"""COCO: a JSON file a split, in COCO's own layout or wherever a tool has put it.

Roboflow (`train/_annotations.coco.json`), CVAT (`annotations/instances_Train.json` and `images`),
labelme2coco, Label Studio (`result.json`), LVIS (images by URL), Objects365 (images in patches).
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, get_args

from box_store.coco.document import read_bytes
from box_store.coco.parsing import Guesses
from box_store.errors import DataError
from box_store.forms.at_once import ALL, role
from box_store.forms.protocol import Form, Found, Options, Split, one_of
from box_store.forms.tree import Tree, parent
from box_store.places.locations import Location, cache_folder

if TYPE_CHECKING:
    from box_store.coco.annotations import CocoData

_INSTANCES = "instances_"
_SUFFIXES = (".json", ".json.gz")
_DEEPEST = 3
_PER_FOLDER = 20
_PROBES = 32
_IMAGE_FOLDERS = ("images", "data", "Images", "img", "imgs", "JPEGImages")


def _recognise(tree: Tree) -> str | None:
    files = _files(tree)
    return ", ".join(files[:3]) + (", ..." if len(files) > 3 else "") if files else None


def _files(tree: Tree) -> list[str]:
    if tree.file is not None:
        return [tree.file] if tree.file.endswith(_SUFFIXES) and _is_coco(tree, tree.file) else []
    files = [path for path in tree.files("json", "gz") if path.endswith(_SUFFIXES)]
    # beside the captions and keypoints of the same photos
    instances = [p for p in files if p.startswith(f"annotations/{_INSTANCES}")]
    if instances:
        return instances
    looked: dict[str, int] = {}
    found = []
    for path in files:
        folder = parent(path)
        looked[folder] = looked.get(folder, 0) + 1
        near = path.count("/") <= _DEEPEST and looked[folder] <= _PER_FOLDER
        if near and _is_coco(tree, path):
            found.append(path)
    return found


def _is_coco(tree: Tree, path: str) -> bool:
    head = tree.head(path).replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
    if not head.startswith(b"{") or b'"shapes"' in head:
        return False
    if any(re.search(key + rb"\s*:\s*\[", head) for key in (b'"images"', b'"annotations"')):
        return True
    # LVIS begins with long categories; a list of classes alone, as Label Studio writes, is no COCO
    begins = re.search(rb'"categories"\s*:\s*\[', head)
    return bool(begins) and b'"images"' in read_bytes(tree.root / path).replace(b"\0", b"")


def _read(tree: Tree, options: Options) -> Found:
    files = _files(tree)
    if not files:
        raise DataError(f"{tree.place}: no COCO annotation file was found")
    names = _split_names(files)
    guesses = _guesses(options)
    return Found(
        [
            Split(name, tree.root / path, None, partial(_load, tree, path, name, guesses))
            for path, name in zip(files, names, strict=True)
        ]
    )


def _guesses(options: Options) -> Guesses:
    known: tuple[Guesses, ...] = get_args(Guesses)
    return one_of(options, "guesses", known, "drop or keep", known[0])


def coco_split(name: str, images: Location, annotations: Location, *, named: bool = False) -> Split:
    """A split whose folder of images and annotation file the user named; with `named` also what its
    images are kept under in a store, which otherwise follows from the file or the folder.
    """

    def load() -> "tuple[Location, CocoData]":
        from box_store.coco.annotations import load_coco

        coco = load_coco(annotations, cache=cache_folder(), labelled=False)
        return images, replace(
            coco, split=name if named else file_split(annotations) or images.name
        )

    return Split(name, annotations, images, load)


def file_split(annotations: Location) -> str:
    """The split that an annotation file is of, by its name or that of its folder; else empty."""
    name = _split_name(str(annotations))
    return "" if name == ALL else name


def remote_layout(root: Location) -> Found:
    """The splits of COCO's layout below a URL, where nothing else is looked for."""
    files = sorted((root / "annotations").glob(f"{_INSTANCES}*.json"))
    if not files:
        raise DataError(
            f"{root}: at a URL data lies in COCO's layout, SPLIT/ and "
            f"annotations/{_INSTANCES}SPLIT.json; there is no such file"
        )
    names = [path.stem.removeprefix(_INSTANCES) for path in files]
    return Found(
        [coco_split(name, root / name, path) for name, path in zip(names, files, strict=True)]
    )


def _split_names(files: Sequence[str]) -> list[str]:
    names = [_split_name(path) for path in files]
    bare = [_bare(path) for path in files]
    return [
        name if names.count(name) == 1 else other for name, other in zip(names, bare, strict=True)
    ]


def _bare(path: str) -> str:
    name = path.rpartition("/")[2]
    return name.removesuffix(".gz").removesuffix(".json")


def _split_name(path: str) -> str:
    name = _bare(path)
    if name.startswith(_INSTANCES):
        return name.removeprefix(_INSTANCES)
    words = [word for word in re.split(r"[^A-Za-z0-9]+", name) if role(word)]
    folder = parent(path).rpartition("/")[2]
    if words:
        return words[-1]
    return folder if role(folder) else ALL


def _load(tree: Tree, path: str, split: str, guesses: Guesses) -> "tuple[Location, CocoData]":
    from box_store.coco.annotations import load_coco

    coco = load_coco(tree.root / path, cache=cache_folder(), labelled=False, guesses=guesses)
    return _placed(tree, coco, path, split)


def _probed(coco: "CocoData") -> int:
    return len(range(0, len(coco.table), max(1, len(coco.table) // _PROBES)))


def _present(tree: Tree, coco: "CocoData", folder: str) -> int:
    """How many of an even sample of the images are below a folder."""
    step = max(1, len(coco.table) // _PROBES)
    names = (coco.table.file_name(at) for at in range(0, len(coco.table), step))
    return sum(tree.has(f"{folder}/{name}" if folder else name) for name in names)


def _placed(tree: Tree, coco: "CocoData", path: str, split: str) -> "tuple[Location, CocoData]":
    """The folder that file names are below, and the annotations with names that are found there."""
    here = parent(path)
    above = parent(here)
    candidates = [
        f"{base}/{name}".strip("/")
        for base in dict.fromkeys((here, above, ""))
        for name in ("", split, *_IMAGE_FOLDERS, *(f"{f}/{split}" for f in _IMAGE_FOLDERS))
    ]
    candidates.insert(0, split)
    ranked = [(c, _present(tree, coco, c)) for c in dict.fromkeys(candidates)]
    best, n = max(ranked, key=lambda pair: pair[1], default=("", 0))
    if n == _probed(coco):
        return tree.root / best, coco
    root, placed = _matched(tree, coco, best if n else "", here)
    if n == 0 and placed is coco:
        # none is anywhere: whoever wants pixels says so, of the folder that should hold them
        return tree.root / (split if _INSTANCES in path else here), coco
    return root, placed


def _matched(tree: Tree, coco: "CocoData", base: str, here: str) -> "tuple[Location, CocoData]":
    """Every image looked for by name; those found elsewhere get the name that they are found by."""
    from box_store.coco.annotation_table import pack_names
    from box_store.coco.rows import Problems

    problems, names, moved = Problems(), [], 0
    settled = bool(base) and 2 * _present(tree, coco, base) > _probed(coco)
    for at in range(len(coco.table)):
        name = coco.table.file_name(at)
        direct = f"{base}/{name}" if base else name
        if tree.has(direct):
            names.append(direct)
            continue
        found = tree.find_image(name, base, here)
        # splits number their files alike: beside a folder that has the others it is another's image
        if found is None or (settled and not found[0].startswith(f"{base}/")):
            names.append(direct)
            continue
        moved += 1
        names.append(found[0])
        if found[1] != "exact":
            problems.note(_HOW[found[1]], f"{name!r} taken as {found[0]}")
    if not moved:
        return tree.root / base, coco
    offsets, packed = pack_names(names)
    counts = dict(coco.problems) | dict(problems.counts)
    return tree.root, replace(
        coco,
        table=replace(coco.table, name_offsets=offsets, names=packed, path=None),
        problems=counts,
        examples=dict(coco.examples) | dict(problems.examples),
    )


_HOW = {
    "slashes": "name with backslashes",
    "percent": "name as in a URL",
    "tail": "path of another place, matched by its end",
}

FORM = Form(
    "coco",
    "COCO",
    _recognise,
    _read,
    {
        "guesses": "annotations with a score, which are refused without a word: drop (their images "
        "are then not labelled), or keep (they are labels)"
    },
)
