"""What a form of data set is, and what it gives: images, categories and boxes, split by split."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from box_store.categories import Categories
from box_store.coco.rows import Rows
from box_store.errors import UsageError, nearest
from box_store.places.locations import Location

if TYPE_CHECKING:
    from box_store.coco.annotations import CocoData
    from box_store.forms.tree import Tree

Options = Mapping[str, str]
T = TypeVar("T", bound=str)
D = TypeVar("D", bound=str | None)


def one_of(options: Options, key: str, known: Sequence[T], expected: str, default: D) -> T | D:
    """An option that takes some words only; `expected` names them for people.

    Raises UsageError for another word.
    """
    if key not in options:
        return default
    for word in known:
        if word == options[key]:
            return word
    raise UsageError(f"{key}={options[key]!r}: expected {expected}")


def first_pixel(options: Options) -> str | None:
    """The option `corners`, 0 or 1; None where nobody says where the first pixel is."""
    return one_of(options, "corners", ("0", "1"), "0 or 1, where the first pixel is", None)


@dataclass(frozen=True)
class Split:
    """One split of a data set as a form found it.

    annotations: the file that holds them, where there is one; else the place of the data set.
    labelled: False where there are images alone, to be labelled.
    """

    name: str
    annotations: Location
    folder: Location | None
    """that the file names are below, where this is known without reading the annotations"""
    load: "Callable[[], tuple[Location, CocoData]]"
    """reads the folder of the images and the annotations"""
    labelled: bool = True
    own_name: str = ""
    """in the data set, where `name` is what was asked for"""
    notes: tuple[str, ...] = ()
    """what people should know of how the data set was found"""

    @property
    def label(self) -> str:
        """What people call it: the split's name, or that of a file of theirs."""
        apart = self.annotations.suffix == ".json" and self.own_name == ""
        laid_out = self.annotations.name == f"instances_{self.name}.json"
        return self.annotations.name if apart and not laid_out else self.name

    @cached_property
    def _loaded(self) -> "tuple[Location, CocoData]":
        images, coco = self.load()
        return images, replace(coco, split=coco.split or self.own_name or self.name)

    @property
    def images(self) -> Location:
        """The folder that file names are below."""
        return self.folder if self.folder is not None else self._loaded[0]

    @property
    def coco(self) -> "CocoData":
        """Images, categories and boxes. Raises DataError for annotations that cannot be used."""
        return self._loaded[1]


@dataclass(frozen=True)
class ReadSplit:
    """A split of a form that reads all of its files at once: rows not yet checked.

    describe: names a box for a message, from the index of its image and the number that its form
    gave it. category_ids: of the classes in the order of the boxes' positions.
    """

    images: Path
    rows: Rows
    describe: Callable[[int, int], str]
    category_ids: Sequence[int]


@dataclass
class Reading:
    """What a form read at once: categories, splits by name, remarks."""

    categories: Categories
    splits: dict[str, ReadSplit]
    notes: list[str] = field(default_factory=list)
    labelled: bool = True


@dataclass(frozen=True)
class Form:
    """A way in which data sets lie on disk.

    recognise: a few words on what was found ("364 files in Annotations"), None if this is none of
    it; looks at names and at the heads of few files. read: what there is, as splits that are read
    when they are wanted, or all at once; DataError for what cannot be read as a whole. options: the
    keys that may follow a place, with what they mean.
    """

    name: str
    title: str
    recognise: Callable[["Tree"], str | None]
    read: Callable[["Tree", Options], "Found | Reading"]
    options: Mapping[str, str] = field(default_factory=dict)

    def check(self, options: Options) -> None:
        """Raise UsageError for an option that the form does not have."""
        for key in options:
            if key not in self.options:
                known = ", ".join(self.options) or "none"
                raise UsageError(
                    f"{self.title} has no option {key!r}.{nearest(key, self.options)} It has: "
                    f"{known}"
                )


@dataclass(frozen=True)
class Found:
    """The splits of a data set, and what people should know of how they were found."""

    splits: Sequence[Split]
    notes: Sequence[str] = ()
