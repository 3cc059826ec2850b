"""Where a YOLO data set keeps its configuration, the images of each split, their label files."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from box_store.coco.rows import Problems
from box_store.errors import DataError
from box_store.forms.at_once import by_role, role
from box_store.forms.tree import IMAGE_SUFFIXES, Tree, parent, stem, suffix
from box_store.places.text import number as as_number

# what lies beside `labels`; the first is what YOLO's own tools look for
_IMAGE_FOLDERS = ("images", "Images", "JPEGImages", "imgs", "img")
_LABEL_FOLDERS = ("labels", "Labels", "label")
NAME_FILES = ("classes.txt", "obj.names", "labels.names", "_darknet.labels", "class.names")


def configuration(tree: Tree) -> str | None:
    """The file that says where images are and what classes are called."""
    if tree.file is not None:
        wanted = suffix(tree.file) in ("yaml", "yml", "data")
        return tree.file if wanted else None
    candidates = [path for path in tree.files("yaml", "yml") if path.count("/") <= 1]
    for path in sorted(candidates, key=lambda path: (path.count("/"), path)):
        head = tree.head(path)
        if (b"names" in head or b"nc:" in head) and (b"train" in head or b"val" in head):
            return path
    for path in tree.files("data"):
        head = tree.head(path)
        if path.count("/") <= 1 and b"names" in head and b"=" in head:
            return path
    return None


def load(tree: Tree, config: str) -> dict[str, Any]:
    """The table of a configuration: YAML, or darknet's `key = value`. Raises DataError."""
    path = tree.root / config
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if suffix(config) == "data":
        rows = (line.partition("=") for line in text.splitlines() if "=" in line)
        table: Any = {key.strip(): value.strip() for key, _, value in rows}
        table.pop("backup", None)
        return table
    import yaml

    try:
        table = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(table, dict):
        raise DataError(f"{path}: expected a table with train, val and names, got {table!r:.60}")
    return table


def root_of(
    tree: Tree, config: str | None, table: dict[str, Any], notes: list[str]
) -> tuple[Tree, str]:
    """The files, and the folder in them that paths of the configuration begin at."""
    here = parent(config or "")
    given = table.get("path")
    if not isinstance(given, str) or not given.strip():
        return tree, here
    named = Path(given.strip()).expanduser()
    if not named.is_absolute():
        folder = tree.root / here
        for start in (folder, folder.parent):
            place = (start / named).resolve()
            if place.is_dir() and place.is_relative_to(tree.root.resolve()):
                inside = place.relative_to(tree.root.resolve()).as_posix()
                return tree, "" if inside == "." else inside
            if place.is_dir() and start == folder:
                return Tree(place), ""
    elif named.is_dir():
        same = named.resolve() == tree.root.resolve()
        return (tree, "") if same else (Tree(named), "")
    notes.append(f"{config}: path {given!r} is not on this machine; files are looked for beside it")
    return tree, here


def members_of(
    tree: Tree, base: str, table: dict[str, Any], problems: dict[str, Problems]
) -> dict[str, list[str]]:
    """Paths of images from the tree's root, by split: as configured, else as folders say.

    Raises DataError if nothing of what is configured is there, or no image has a label file.
    """
    members: dict[str, list[str]] = {}
    for split in _split_keys(table):
        entries = table[split] if isinstance(table[split], list) else [table[split]]
        found = problems.setdefault(split, Problems())
        paths: list[str] = []
        for entry in entries:
            paths += _entry(tree, base, str(entry), split, found)
        if paths or found.counts:
            members[split] = paths
        else:
            del problems[split]
    if members:
        return members
    if table:
        listed = [f"{key}: {table[key]}" for key in _split_keys(table)]
        if listed:
            raise DataError(
                f"{tree.place}: none of {', '.join(listed)} is there (looked in {tree.root / base})"
            )
    folders = label_folders(tree)
    images = [
        f"{twin}/{name}" if twin else name
        for folder in folders
        for twin in [_image_folder(tree, folder)]
        for name in tree.folders.get(twin, ())
        if suffix(name) in IMAGE_SUFFIXES
    ]
    if not images:
        raise DataError(f"{tree.place}: no image with a label file was found")
    return by_role(images)


def _split_keys(table: dict[str, Any]) -> list[str]:
    """Keys whose values are images: `train` and the like, also with a year as datumaro has it."""
    return [str(key) for key, value in table.items() if value and role(str(key))]


def _entry(tree: Tree, base: str, entry: str, split: str, problems: Problems) -> list[str]:
    """The images that one entry of the configuration names: a folder, or a file that lists them."""
    entry = entry.strip().replace("\\", "/")
    folder = _folder(tree, base, entry)
    if folder is not None:
        inside = [path for path in tree.images if not folder or path.startswith(f"{folder}/")]
        return inside
    if entry.endswith(".txt"):
        listed = listed_file(tree, base, entry)
        if listed is not None:
            return list(_list(tree, base, listed, problems))
    problems.note(
        "split not found", f"{split}: {entry} is neither a folder of images nor a list of them"
    )
    return []


def _folder(tree: Tree, base: str, entry: str) -> str | None:
    """The folder that an entry means: below the base, else the one whose path ends like it."""
    parts = [part for part in entry.split("/") if part not in ("", ".")]
    if entry.startswith("/"):
        place = Path(entry)
        root = tree.root.resolve()
        if place.is_dir() and place.resolve().is_relative_to(root):
            inside = place.resolve().relative_to(root).as_posix()
            return "" if inside == "." else inside
    plain = [part for part in parts if part != ".."]
    for start in range(len(plain) + 1 if entry.startswith("/") else 1):
        path = "/".join([*(base.split("/") if base else []), *plain[start:]])
        # a base alone is the whole data set, which no entry means that names a folder
        if path in tree.folders and (plain[start:] or not plain):
            return path
        below = [f for f in tree.folders if f.startswith(f"{path}/")]
        if plain[start:] and below:
            return path
    return None


def listed_file(tree: Tree, base: str, entry: str) -> str | None:
    """The file that an entry means: below the base or the root, else the one with such an end."""
    plain = [part for part in entry.split("/") if part not in ("", ".", "..")]
    for start in range(len(plain)):
        for root in dict.fromkeys((base, "")):
            path = "/".join([*(root.split("/") if root else []), *plain[start:]])
            if tree.has(path):
                return path
    return None


def _list(tree: Tree, base: str, listed: str, problems: Problems) -> Iterator[str]:
    text = (tree.root / listed).read_bytes().decode("utf-8-sig", "surrogateescape")
    for number, line in enumerate(text.splitlines(), 1):
        name = line.strip()
        if not name:
            continue
        found = tree.find_image(name, parent(listed), base)
        if found is None:
            problems.note("image missing", f"{listed} line {number}: {tree.missing(name)}")
            continue
        if found[1] == "tail" and name.startswith("/"):
            problems.note(
                "path of another machine, matched by its end",
                f"{listed} line {number}: {name!r} taken as {found[0]}",
            )
        yield found[0]


def label_folders(tree: Tree) -> list[str]:
    """Folders of label files beside folders of images, where no configuration names them."""
    found = []
    for folder, names in tree.folders.items():
        texts = [name for name in names if suffix(name) == "txt" and name not in NAME_FILES]
        if not texts:
            continue
        stems = {stem(name) for name in texts}
        for twin in dict.fromkeys((_image_folder(tree, folder), folder)):
            images = [n for n in tree.folders.get(twin, ()) if suffix(n) in IMAGE_SUFFIXES]
            if any(stem(name) in stems for name in images) and _is_rows(tree, folder, texts):
                found.append(folder)
                break
    return found


def _is_rows(tree: Tree, folder: str, names: Sequence[str]) -> bool:
    for name in names[:20]:
        head = tree.head(f"{folder}/{name}" if folder else name).decode("utf-8", "replace")
        line = head.strip().partition("\n")[0]
        if line:
            words = line.split()
            return len(words) >= 5 and all(as_number(word) is not None for word in words)
    return False


def _image_folder(tree: Tree, labels: str) -> str:
    for name in _IMAGE_FOLDERS:
        twin = _twin(labels, "labels", name)
        if twin in tree.folders and twin != labels:
            return twin
    return labels


def _twin(folder: str, old: str, new: str) -> str:
    """The folder with its last part called `old` renamed."""
    parts = folder.split("/")
    for at in range(len(parts) - 1, -1, -1):
        if parts[at].lower() == old:
            return "/".join([*parts[:at], new, *parts[at + 1 :]])
    return folder


def unmatched(tree: Tree, members: Iterable[Sequence[str]]) -> Iterator[str]:
    """What to say of the folders of images and of their labels: images that share a label file, and
    label files without an image.
    """
    shared: list[str] = []
    lost: list[str] = []
    for folder in dict.fromkeys(parent(path) for paths in members for path in paths):
        names = [name for name in tree.folders.get(folder, ()) if suffix(name) in IMAGE_SUFFIXES]
        stems: dict[str, str] = {}
        for name in names:
            first = stems.setdefault(stem(name), name)
            if first != name:
                shared.append(f"{folder}/{first} and {name}".lstrip("/"))
        labels = parent(label_file(tree, f"{folder}/{names[0]}" if folder else names[0]))
        prefix = f"{labels}/" if labels else ""
        lost += [
            prefix + name
            for name in tree.folders.get(labels, ())
            if suffix(name) == "txt"
            and stem(name) not in stems
            and _is_row_file(tree, prefix + name)
        ]
    if shared:
        yield f"{len(shared)} pairs of images share a label file, such as {shared[0]}"
    if lost:
        yield f"{len(lost)} label files are of no image that is there, such as {lost[0]}"


def _is_row_file(tree: Tree, path: str) -> bool:
    return _is_rows(tree, parent(path), [path.rpartition("/")[2]])


def label_file(tree: Tree, image: str) -> str:
    """The label file of an image: its path from the root, whether it exists or not."""
    name = f"{stem(image)}.txt"
    own = parent(image)
    first = None
    for labels in _LABEL_FOLDERS:
        folder = _label_folder(own, labels)
        path = f"{folder}/{name}" if folder else name
        if tree.has(path):
            return path
        first = first or path
    beside = f"{own}/{name}" if own else name
    return beside if tree.has(beside) else first or beside


def _label_folder(folder: str, labels: str) -> str:
    """The twin of a folder of images; itself where it is none by its name."""
    for images in _IMAGE_FOLDERS:
        twin = _twin(folder, images.lower(), labels)
        if twin != folder:
            return twin
    return folder
