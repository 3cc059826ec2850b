"""A data set as it lies: what form it has, its splits, and every split as images and boxes."""

import codecs
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from box_store.categories import Categories
from box_store.coco.annotation_table import AnnotationTable
from box_store.coco.annotations import CocoData, load_coco
from box_store.errors import DataError, UsageError, nearest
from box_store.forms import kept
from box_store.forms.at_once import role
from box_store.forms.coco import file_split, remote_layout
from box_store.forms.protocol import Form, Found, Options, Reading, Split
from box_store.forms.table import FORMS
from box_store.forms.tree import Tree, suffix
from box_store.forms.unlabelled import mark_unlabelled
from box_store.places.locations import Location, RemotePath, as_typed, cache_folder

_GENERAL = {
    "form": f"what it is, where that is not seen: {', '.join(form.name for form in FORMS)}",
    "images": "the folder of the images, where it lies apart from the annotations",
    "split": "this split alone",
    "unlabelled": "images that nobody labelled: a file that lists them, or `empty` for all without "
    "objects",
}
# of files that describe many images
_DESCRIBE = ("json", "jsonl", "gz", "csv", "odgt", "yaml", "yml", "data", "parquet")
_PACKED = ("zip", "tar", "gz", "tgz", "bz2", "xz", "7z", "rar")
# what is asked for by default
_USUAL = ("train2017", "val2017")


@dataclass(frozen=True)
class DataSet:
    """A data set as it was found.

    evidence: what it was known by, in a few words. notes: what people should know of how it was
    read, a sentence each.
    """

    place: Location
    form: str
    title: str
    evidence: str
    splits: tuple[Split, ...]
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line: the place, what it was taken for, its splits."""
        names = ", ".join(split.name for split in self.splits)
        return f"{self.place} is taken as {self.title} ({self.evidence}); splits: {names}"

    def split(self, name: str) -> Split:
        """The split of that name; `train2017` and `val2017`, the defaults, also mean the only split
        for that purpose.

        Raises DataError, naming the splits that there are.
        """
        found = self._find(name)
        return replace(found, name=name, own_name=found.name, notes=self.remarks)

    @property
    def only(self) -> Split:
        """The split, where there is one. Raises UsageError for several."""
        if len(self.splits) != 1:
            names = ", ".join(split.name for split in self.splits)
            raise UsageError(f"{self.place} has the splits {names}: say which, with ,split=NAME")
        return self.split(self.splits[0].name)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What people should be told: what this was taken for, if it is not COCO's own layout."""
        plain = self.evidence.startswith("annotations/instances_")
        return self.notes if plain else (self.summary, *self.notes)

    def _find(self, name: str) -> Split:
        for split in self.splits:
            if split.name == name:
                return split
        if name in _USUAL:
            alike = [split for split in self.splits if role(split.name) == role(name)]
            if len(alike) == 1:
                return alike[0]
            only = self.splits[0]
            if role(name) == "train" and len(self.splits) == 1 and role(only.name) is None:
                return only
        names = [split.name for split in self.splits]
        raise DataError(
            f"{self.place} ({self.title}) has no split {name!r}; there "
            f"{'is' if len(names) == 1 else 'are'}: {', '.join(names)}.{nearest(name, names)}"
        )


def open_data(place: Location | str) -> DataSet:
    """Find out what form a data set has, and what splits.

    place: a folder, an annotation file or a URL, and options behind commas: `photos,form=voc`.
    Annotations of forms with a file an image are read now, or mapped from the cache.

    Raises DataError: there is nothing, it has no form that is known, or cannot be read. UsageError
    for an option that the form does not have.
    """
    path, options = parse_place(place)
    wanted, unlabelled = options.pop("split", None), options.pop("unlabelled", None)
    found = _open(path, options)
    if unlabelled is not None:
        splits, notes = mark_unlabelled(found.place, found.splits, unlabelled)
        found = replace(found, splits=splits, notes=(*found.notes, *notes))
    return found if wanted is None else replace(found, splits=(found.split(wanted),))


def annotations_of(place: Location | str, *, labelled: bool = True) -> CocoData:
    """The annotations that a place stands for: a COCO file, or a data set of any form with one
    split, or with `,split=NAME` behind it. Images that nobody labelled are left out: nothing can be
    judged by them. With `labelled=False` they, and sets without annotations, are there too.

    Raises DataError, UsageError.
    """
    path, options = parse_place(place)
    if not options and (isinstance(path, RemotePath) or path.suffix in (".json", ".gz")):
        coco = load_coco(path, labelled=labelled, cache=cache_folder())
        coco = replace(coco, split=file_split(path))
        return _judged(coco) if labelled else coco
    found = open_data(place)
    split = found.only
    if labelled and not (split.labelled and split.coco.labelled):
        raise DataError(f"{found.place} ({found.title}) has no annotations")
    return _judged(split.coco) if labelled else split.coco


def _judged(coco: CocoData) -> CocoData:
    """Without images that nobody labelled. Raises DataError if there is no other."""
    if len(coco.table) and coco.table.unlabelled.all():
        raise DataError(f"{coco.path}: nobody labelled any of its images")
    return coco.of_labelled


def folder_of(place: Location | str) -> Path | None:
    """The folder of a data set's images, where that is on this machine and the splits share it.

    Raises DataError, UsageError.
    """
    folders = {str(split.images): split.images for split in open_data(place).splits}
    first = next(iter(folders.values()))
    return first if len(folders) == 1 and isinstance(first, Path) else None


def _open(path: Location, options: dict[str, str]) -> DataSet:
    if isinstance(path, RemotePath):
        if options:
            raise UsageError(f"{path}: at a URL data lies in COCO's layout, which has no options")
        return _as_set(
            path, FORMS[0], "SPLIT/ and annotations/instances_SPLIT.json", remote_layout(path)
        )
    key = kept.key_of(path, options)
    index = kept.find(cache_folder(), key, path)
    if index is None:
        return _read(path, options, key)
    form = next(form for form in FORMS if form.name == index.form)
    return _indexed(path, form, index)


def parse_place(place: Location | str) -> tuple[Location, dict[str, str]]:
    """A place and the options behind it; a path that exists is one, whatever commas it has."""
    if isinstance(place, RemotePath):
        return place, {}
    whole = as_typed(Path(place))
    head, *words = str(place).split(",")
    options: dict[str, str] = {}
    if isinstance(whole, Path) and whole.exists():
        return whole, options
    while words and "=" in words[-1]:
        key, _, value = words.pop().partition("=")
        options = {key.strip(): value.strip(), **options}
        start = ",".join([head, *words])
        if not words or Path(start).exists():
            return as_typed(Path(start)), options
    return whole, {}


def _read(path: Path, options: dict[str, str], key: str) -> DataSet:
    images = options.get("images")
    tree = Tree(path, None if images is None else _images_folder(path, images))
    own = {name: value for name, value in options.items() if name not in _GENERAL}
    form, evidence, others = _form(tree, options.get("form"), own)
    form.check(own)
    found = form.read(tree, own)
    notes = list(_empty_files(tree))
    if others:
        notes.append(
            f"it could also be read as {' or '.join(others)}: say which with ,form=NAME behind the "
            "path"
        )
    if tree.outside:
        n, first = len(tree.outside), tree.outside[0]
        notes.append(f"{n} links that leave the folder are not followed, such as {first}")
    if isinstance(found, Found):
        return _as_set(path, form, evidence, Found(found.splits, [*notes, *found.notes]))
    index = _checked(path, form, evidence, found, notes)
    kept.keep(cache_folder(), key, index, kept.Watched.of(tree))
    return _indexed(path, form, index)


def _empty_files(tree: Tree) -> Iterator[str]:
    """Files that should describe a data set, or a split of it, and hold nothing or no text."""
    for ending in _DESCRIBE:
        for path in () if tree.file is not None else tree.few(ending):
            head = tree.head(path)
            if not head.strip():
                yield f"{path} is empty"
            elif ending != "parquet" and not _is_text(head):
                yield f"{path} is no text"


def _is_text(head: bytes) -> bool:
    if (
        head.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        or b"\0" in head
    ):
        # in another encoding: whoever reads it says what is wrong with it
        return True
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _images_folder(path: Path, images: str) -> Path:
    """As the user typed it: from where they are, else from the annotations."""
    typed = Path(images)
    beside = (path if path.is_dir() else path.parent) / images
    return typed if typed.exists() or not beside.exists() else beside


def _form(tree: Tree, asked: str | None, own: Options) -> tuple[Form, str, list[str]]:
    """The form, what it was known by, and what else was recognised. own: options that are not of
    all forms; what only one form has says that it is this one, where none is
    recognised.
    """
    if asked is not None:
        names = [form.name for form in FORMS]
        form = next((form for form in FORMS if form.name == asked), None)
        if form is None:
            raise UsageError(
                f"there is no form {asked!r}: {', '.join(names)}.{nearest(asked, names)}"
            )
        evidence = form.recognise(tree)
        if evidence is None:
            raise DataError(f"{tree.place} does not look like {form.title}")
        return form, evidence, []
    seen = [(form, words) for form in FORMS if (words := form.recognise(tree)) is not None]
    able = [form for form in FORMS if own and not set(own) - set(form.options)]
    if len(able) == 1 and all(form.name == "photos" for form, _ in seen):
        return able[0], f"by its option {', '.join(own)}", []
    # what has the options before what has not
    seen.sort(key=lambda pair: bool(able) and pair[0] not in able)
    if not seen:
        titles = ", ".join(form.title for form in FORMS)
        packed = suffix(tree.file or "") in _PACKED
        advice = "unpack it first" if packed else "docs/data.md says what each consists of"
        raise DataError(
            f"{tree.place} holds no data set of a form that is read here ({titles}); {advice}"
        )
    others = [form.title for form, _ in seen[1:] if form.name != "photos"]
    return *seen[0], others


def _as_set(path: Location, form: Form, evidence: str, found: Found) -> DataSet:
    return DataSet(
        path, form.name, form.title, evidence, _ordered(found.splits), tuple(found.notes)
    )


def _ordered(splits: Sequence[Split]) -> tuple[Split, ...]:
    """What is trained on first."""
    order = {"train": 0, "val": 1, "test": 2}
    return tuple(sorted(splits, key=lambda split: order.get(role(split.name) or "", 3)))


def _checked(
    path: Path, form: Form, evidence: str, reading: Reading, notes: list[str]
) -> kept.Index:
    """The rows that a form read, checked, split by split."""
    splits = {}
    for name, split in reading.splits.items():
        table = split.rows.table(split.describe, split.category_ids)
        problems = split.rows.problems
        coco = CocoData(
            path,
            _digest(reading.categories, table),
            reading.categories,
            table,
            dict(problems.counts),
            problems.examples,
        )
        splits[name] = (split.images, coco)
    return kept.Index(form.name, evidence, (*notes, *reading.notes), reading.labelled, splits)


def _digest(categories: Categories, table: AnnotationTable) -> str:
    """What stands for the hash of an annotation file: of everything that was read."""
    digest = hashlib.sha256(json.dumps(categories.to_json()).encode())
    for column in (
        *(table.image_ids, table.widths, table.heights, table.name_offsets, table.names),
        *(table.offsets, table.boxes_xywh, table.category_ids, table.iscrowd, table.areas),
    ):
        digest.update(np.ascontiguousarray(column).tobytes())
    if table.unlabelled.any():
        digest.update(table.unlabelled.tobytes())
    return digest.hexdigest()


def _indexed(path: Path, form: Form, index: kept.Index) -> DataSet:
    def load(name: str):
        return lambda: index.splits[name]

    splits = [
        Split(name, path, images, load(name), index.labelled)
        for name, (images, _) in index.splits.items()
    ]
    return _as_set(path, form, index.evidence, Found(splits, index.notes))


def options_of(form: Form) -> Mapping[str, str]:
    """The options of a form, with those that all have."""
    return {**_GENERAL, **form.options}


__all__ = [
    "DataSet",
    "Options",
    "annotations_of",
    "folder_of",
    "open_data",
    "options_of",
    "parse_place",
]
