"""The files below a folder, listed once, and names looked for among them."""

import os
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote

from box_store.errors import DataError

IMAGE_SUFFIXES = frozenset(
    (
        *("jpg", "jpeg", "jpe", "jfif", "png", "bmp", "dib", "webp", "tif", "tiff", "gif", "jp2"),
        *("j2k", "ppm", "pgm", "pbm", "pnm", "avif", "mpo", "tga"),
    )
)
_DEEPEST = 8
_FEW = 20
# what a file of annotations is worth reading of, to know what it is
_HEAD = 1 << 16

How = Literal["exact", "slashes", "percent", "tail"]


class Tree:
    """A place that a user named: a folder with all that is below it, or one file.

    Hidden files and folders are passed over. Links that lead out of the folder are not followed;
    `outside` lists them.
    """

    def __init__(self, place: Path, images: Path | None = None) -> None:
        """images: a folder of images apart from `place`; the root is then above both.

        Raises DataError if there is nothing at `place` or `images`.
        """
        self.place = Path(place)
        for wanted in (self.place, images):
            if wanted is not None and not wanted.exists():
                near = wanted.parent
                where = f"{near} exists" if near.is_dir() else f"{near} is missing too"
                raise DataError(f"no folder or file {wanted} ({where})")
        self.outside: list[str] = []
        is_file = not self.place.is_dir()
        folder = self.place.parent if is_file else self.place
        if images is not None:
            self.root = Path(os.path.commonpath([folder.absolute(), images.absolute()]))
        elif is_file:
            self.root = _with_images(folder)
        else:
            self.root = folder
        self.file: str | None = None
        """the file, as a path from the root, where the place is one"""
        if is_file:
            self.file = self.place.absolute().relative_to(self.root.absolute()).as_posix()

    @cached_property
    def folders(self) -> dict[str, list[str]]:
        """Names of the files of every folder, by its path from the root ("" is the root)."""
        found: dict[str, list[str]] = {}
        real = self.root.resolve()

        def walk(folder: str, depth: int) -> None:
            names: list[str] = []
            below: list[str] = []
            try:
                entries = list(os.scandir(self.root / folder))
            except OSError:
                # unreadable: what it holds is missing, and missing files are counted
                return
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_symlink():
                    target = (self.root / path).resolve()
                    if not target.is_relative_to(real):
                        self.outside.append(path)
                        continue
                    if target.is_dir():
                        # its own name is walked
                        continue
                if entry.is_dir():
                    below.append(path)
                else:
                    names.append(entry.name)
            names.sort()
            found[folder] = names
            if depth < _DEEPEST:
                for path in sorted(below):
                    walk(path, depth + 1)

        walk("", 0)
        return found

    def files(self, *suffixes: str, under: str = "") -> Iterator[str]:
        """Paths of files from the root, in order, of these suffixes (without a dot)."""
        found = [path for wanted in suffixes for path in self._by_suffix.get(wanted, ())]
        if len(suffixes) > 1:
            found.sort()
        return iter(path for path in found if not under or path.startswith(f"{under}/"))

    def few(self, suffix: str) -> Iterator[str]:
        """The place itself where it is a file, else the first files of that suffix in every folder:
        those among which a file of a whole data set can be, not one an image.
        """
        if self.file is not None:
            return iter([self.file])
        looked: dict[str, list[str]] = defaultdict(list)
        for path in self.files(suffix):
            looked[parent(path)].append(path)
        return iter([path for paths in looked.values() for path in paths[:_FEW]])

    @cached_property
    def _by_suffix(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for folder, names in self.folders.items():
            prefix = f"{folder}/" if folder else ""
            for name in names:
                found[suffix(name)].append(prefix + name)
        return found

    def has(self, path: str) -> bool:
        """Whether there is a file of that path from the root."""
        folder, _, name = path.rpartition("/")
        return name in self._sets.get(folder, ())

    @cached_property
    def _sets(self) -> dict[str, frozenset[str]]:
        return {folder: frozenset(names) for folder, names in self.folders.items()}

    @cached_property
    def images(self) -> list[str]:
        """All image files, as paths from the root."""
        return list(self.files(*IMAGE_SUFFIXES))

    @cached_property
    def _images_by_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for path in self.images:
            found[path.rpartition("/")[2]].append(path)
        return found

    @cached_property
    def _images_by_stem(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for path in self.images:
            found[path.rpartition("/")[2].rpartition(".")[0]].append(path)
        return found

    def find_image(self, name: str, *bases: str) -> tuple[str, How] | None:
        """The image that `name` means, as a path from the root, and how it was found.

        name: a path from one of the folders `bases`, of whatever machine; without a suffix it is
        completed. Where no base has it, the image whose path ends like `name` does is taken, if it
        is the only one.
        """
        if "/" not in name and "\\" not in name:
            # bare, and the only one of its name: the usual case
            alone = self._images_by_name.get(name) or self._images_by_stem.get(name, ())
            if len(alone) == 1:
                return alone[0], "exact"
        for how, spelling in _spellings(name):
            for base in (*bases, ""):
                path = _joined(base, spelling)
                if path is not None and self.has(path) and suffix(path) in IMAGE_SUFFIXES:
                    return path, how
        spelling = name.replace("\\", "/")
        parts = [part for part in PurePosixPath(spelling).parts if part not in ("/", "..", ".")]
        if not parts:
            return None
        found = self._images_by_name.get(parts[-1]) or self._images_by_stem.get(parts[-1], [])
        # as much of the tail as tells one from the others
        best = [path for path in found if _common_tail(path, parts) == _longest(found, parts)]
        if len(best) != 1:
            inside = [path for path in best if any(path.startswith(f"{b}/") for b in bases if b)]
            if len(inside) != 1:
                return None
            best = inside
        bare = len(parts) == 1
        return best[0], "exact" if bare else "tail"

    def missing(self, name: str) -> str:
        """Why `find_image` finds none of that name, in words."""
        last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
        found = self._images_by_name.get(last) or self._images_by_stem.get(last, [])
        if len(found) > 1:
            return f"{len(found)} images could be {name!r}: {found[0]}, {found[1]}"
        if name in self.outside:
            return f"{name!r} is a link that leaves the folder"
        return f"no image {name!r}"

    def head(self, path: str) -> bytes:
        """The first bytes of a file, unpacked if it is packed; empty where it cannot be read."""
        return read_head(self.root / path)


def _with_images(folder: Path) -> Path:
    """The folder of an annotation file, or the nearest of two above it that holds images."""
    for near in [folder, *list(folder.absolute().parents)[:2]]:
        if near in (Path.home(), Path(near.anchor)):
            break
        if Tree(near).images:
            return near
    return folder


def read_head(path: Path) -> bytes:
    """The first bytes of a file, unpacked if it is packed; empty where it cannot be read."""
    import gzip
    import zlib

    try:
        if path.suffix == ".gz":
            with gzip.open(path) as packed:
                return packed.read(_HEAD)
        with path.open("rb") as file:
            return file.read(_HEAD)
    except (OSError, EOFError, zlib.error):
        return b""


def suffix(name: str) -> str:
    """In lower case, without its dot."""
    return name.rpartition(".")[2].lower() if "." in name else ""


def stem(path: str) -> str:
    """The last part of a path without its suffix."""
    name = path.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def parent(path: str) -> str:
    """A path without its last part."""
    return path.rpartition("/")[0]


def common_folder(paths: list[str]) -> str:
    """The deepest folder that all of these paths are below."""
    if not paths:
        return ""
    folders = {parent(path) for path in paths}
    return os.path.commonpath(list(folders)) if all(folders) else ""


def _spellings(name: str) -> Iterator[tuple[How, str]]:
    yield "exact", name
    if "\\" in name:
        yield "slashes", name.replace("\\", "/")
    if "?d=" in name:
        # a local file as Label Studio's server names it
        yield "percent", unquote(name.partition("?d=")[2])
    if "%" in name:
        yield "percent", unquote(name)


def _joined(base: str, name: str) -> str | None:
    """`base/name` without dots; None if it leaves the root or is absolute."""
    if name.startswith("/") or (len(name) > 1 and name[1] == ":"):
        return None
    parts: list[str] = base.split("/") if base else []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _common_tail(path: str, parts: list[str]) -> int:
    count = 0
    for mine, theirs in zip(reversed(path.split("/")[:-1]), reversed(parts[:-1]), strict=False):
        if mine != theirs:
            break
        count += 1
    return count


def _longest(paths: list[str], parts: list[str]) -> int:
    return max(_common_tail(path, parts) for path in paths)
