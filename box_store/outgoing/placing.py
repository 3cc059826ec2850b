"""Images beside what is written of them: linked where the file system allows it, else copied."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from box_store.errors import DataError, UsageError
from box_store.outgoing.sheet import Account, Part, Sheet
from box_store.pixels import ImageError, find_image
from box_store.places import files
from box_store.places.image_files import image_path
from box_store.places.locations import Location


def empty_folder(out: Path) -> None:
    """Make a folder to write into. Raises UsageError if something is in it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists already and is no empty folder: choose another --out")
    files.make_folder(out)


def place_image(images: Location, name: str, target: Path) -> bool:
    """Link or copy an image; False if there is none, or its name leads out of its folder."""
    try:
        source = Path(str(find_image(images, name)))
    except ImageError:
        return False
    if not source.is_file():
        return False
    files.make_folder(target.parent)
    if target.exists():
        return True
    with suppress(OSError):
        os.link(source, target)
        return True
    shutil.copyfile(source, target)
    return True


class Names:
    """Names for images in a form that keeps a file of labels by the name without its ending.

    flat: no folders, and no name twice in the whole set.
    """

    def __init__(self, *, flat: bool) -> None:
        self._flat = flat
        self._taken: dict[str, str] = {}

    def give(self, sheet: Sheet, part: Part) -> Sheet:
        """The sheet under a name that is free: its own, if possible.

        Raises DataError where images are not written and keep their names: one leads out of the
        folder, or two would share a file of labels.
        """
        own, split = sheet.file_name, part.name
        if part.images is None:
            image_path(Path("/images"), own)
            self._refuse_shared(own)
            return sheet
        path = PurePosixPath(own)
        plain, ending = path.stem, path.suffix
        if self._flat:
            path = PurePosixPath(path.name)
        below = own.removesuffix(ending).replace("/", "_")
        for name in (plain, f"{plain}_{ending[1:]}", below, f"{split}_{below}"):
            found = path.with_name(name + ending)
            if self._take(found, split):
                return replace(sheet, file_name=str(found), source=own)
        found = path.with_name(f"{split}_{below}_{sheet.image_id}{ending}")
        self._take(found, split)
        return replace(sheet, file_name=str(found), source=own)

    def _take(self, path: PurePosixPath, split: str) -> bool:
        key = str(path.with_suffix(""))
        key = key if self._flat else f"{split}/{key}"
        free = key not in self._taken
        self._taken[key] = path.name
        return free

    def _refuse_shared(self, name: str) -> None:
        key = str(PurePosixPath(name).with_suffix(""))
        other = self._taken.setdefault(key, name)
        if other != name:
            raise DataError(
                f"the images {other} and {name} would share a file of labels: this form has one "
                "for each name without its ending"
            )


def placed(
    part: Part, names: Names, account: Account, folder: Path
) -> Iterator[tuple[Sheet, Path]]:
    """The images of a split under the names that they are written by, and where they lie in
    `folder`. One whose file is not there is left out; both kinds are counted. Raises DataError.
    """
    for sheet in part.sheets:
        named = names.give(sheet, part)
        image = folder / named.file_name
        if part.images is not None and not place_image(part.images, sheet.file_name, image):
            account.missing += 1
            continue
        account.images += 1
        yield named, image
