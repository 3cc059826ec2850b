"""Forms whose images have a file of labels each, or rows in a table: read image by image.

Images are numbered from 1 over the whole data set, in the order of their paths, so that no two
splits share an id unless they share the image.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from box_store.categories import Categories, Category
from box_store.coco.rows import Box, Problems, Rows
from box_store.forms.headers import image_size
from box_store.forms.protocol import Reading, ReadSplit
from box_store.forms.tree import Tree, common_folder, parent
from box_store.pixels import ImageError

ALL = "all"

__all__ = [
    "ALL",
    "Box",
    "Classes",
    "Labelled",
    "assemble",
    "beside",
    "by_folder",
    "by_role",
    "role",
    "size_of",
]


@dataclass(slots=True)
class Labelled:
    """What a form knows of one image: its size in pixels, and its boxes."""

    width: int
    height: int
    boxes: Sequence[Box] = ()
    unlabelled: bool = False
    """nobody has said what is in it, or not all of it"""


@dataclass
class Classes:
    """Class names by position: given, or collected as they are met."""

    names: list[str] = field(default_factory=list)
    closed: bool = False
    _positions: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._positions = {name: at for at, name in enumerate(self.names)}

    def position(self, name: str) -> int | None:
        """Where a name stands; a new one is added, unless the list is closed: then None."""
        found = self._positions.get(name)
        if found is None and not self.closed:
            found = self._positions[name] = len(self.names)
            self.names.append(name)
        return found

    def table(self) -> tuple[Categories, list[int]]:
        """Categories with ids from 1, and the id of every position: in the order given, or, if
        they were collected, sorted by name.
        """
        order = self.names if self.closed else sorted(self.names)
        ids = {name: at for at, name in enumerate(order, 1)}
        categories = Categories(tuple(Category(ids[name], name) for name in order))
        return categories, [ids[name] for name in self.names]


def assemble(
    tree: Tree,
    members: Mapping[str, Sequence[str]],
    read: Callable[[str, Problems], Labelled | None],
    classes: Classes,
    describe: Callable[[str, int], str],
    problems: Mapping[str, Problems] | None = None,
) -> Reading:
    """Read every image once, into all the splits that hold it.

    members: paths of images from the tree's root, by split. read: one image's labels; None leaves
    it out, with the reason among the problems, which become those of its splits. describe: a box
    for messages, from its image's path and its number. problems: what was wrong before any image
    was read.
    """
    roots = {name: common_folder(list(paths)) for name, paths in members.items()}
    rows = {name: Rows() for name in members}
    for name, found in (problems or {}).items():
        rows[name].problems = found
    holders: dict[str, list[str]] = {}
    for name, paths in members.items():
        for path in dict.fromkeys(paths):
            holders.setdefault(path, []).append(name)
    for image_id, path in enumerate(sorted(holders), 1):
        found = Problems()
        labelled = read(path, found)
        for name in holders[path]:
            mine = rows[name]
            if found.counts:
                mine.problems.add(found)
            if labelled is None:
                continue
            shown = path[len(roots[name]) + 1 :] if roots[name] else path
            index = mine.add_image(
                image_id, shown, labelled.width, labelled.height, unlabelled=labelled.unlabelled
            )
            if labelled.boxes:
                mine.add_boxes(index, labelled.boxes)
    categories, ids = classes.table()

    def described(name: str) -> Callable[[int, int], str]:
        prefix = f"{roots[name]}/" if roots[name] else ""
        return lambda index, number: describe(prefix + rows[name].name(index), number)

    splits = {
        name: ReadSplit(tree.root / roots[name], rows[name], described(name), ids)
        for name in members
    }
    return Reading(categories, splits)


def beside(tree: Tree, taken: Collection[str]) -> list[str]:
    """What to say of images that lie in the folders of those that are taken, and are not: nothing
    describes them.
    """
    known = set(taken)
    folders = {parent(path) for path in known}
    others = [path for path in tree.images if path not in known and parent(path) in folders]
    if not others:
        return []
    return [f"{len(others)} images have no annotation file and are left out, such as {others[0]}"]


def size_of(tree: Tree, path: str, problems: Problems) -> tuple[int, int] | None:
    """Width and height from the file's header; None, with a note, if it cannot be read."""
    try:
        return image_size(f"{tree.root}/{path}")
    except ImageError as error:
        problems.note("image not readable", str(error))
        return None


def by_folder(paths: Sequence[str]) -> dict[str, list[str]]:
    """Paths by split, where the first folders that tell them apart are called as splits are."""
    for depth in range(3):
        found: dict[str, list[str]] = {}
        for path in paths:
            parts = path.split("/")[:-1]
            found.setdefault(parts[depth] if len(parts) > depth else "", []).append(path)
        if found and all(role(name) for name in found):
            return found
    return {ALL: list(paths)}


def by_role(images: Sequence[str]) -> dict[str, list[str]]:
    """As `by_folder`; images/train and train/images alike."""
    plain = by_folder(images)
    if ALL not in plain:
        return plain
    inner = {path: path.partition("/")[2] for path in images if path.startswith("images/")}
    if len(inner) == len(images):
        again = by_folder(list(inner.values()))
        return {name: [f"images/{path}" for path in paths] for name, paths in again.items()}
    return plain


def role(split: str) -> str | None:
    """What a split is for, by its name: train, val or test; None if its name does not say."""
    name = split.lower().rstrip("0123456789_-")
    for found, names in _ROLES.items():
        if name in names:
            return found
    return None


_ROLES = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev", "eval"),
    "test": ("test", "testing", "tst"),
}
