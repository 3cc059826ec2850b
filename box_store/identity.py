"""Which image is it? An id alone does not say: exporters count the images of every split from 1.

Whoever joins the boxes of a store with annotations asks here first whether both speak of the same
images: the file's name and the size, beside the id.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from box_store.coco.annotations import CocoData, ImageInfo
from box_store.errors import DataError
from box_store.places.image_files import stored_name
from box_store.store.reader import images_of
from box_store.store.store import BoxStore

_NAMED = 3


@dataclass(frozen=True)
class Contradiction:
    """One id, and the two images that it stands for."""

    stored: ImageInfo
    listed: ImageInfo

    @property
    def names_differ(self) -> bool:
        """Whether it is another file, and not the same one in another size."""
        return not same_name(self.stored.file_name, self.listed.file_name)

    def __str__(self) -> str:
        there, here = (
            f"{image.file_name or 'an unnamed file'} ({image.width} x {image.height})"
            for image in (self.stored, self.listed)
        )
        return f"image {self.listed.id} is {there} there and {here} here"


def same_name(one: str, other: str) -> bool:
    """Whether two paths can be those of one file: one of them ends as the other, part by part.

    The folder that they count from may differ. An empty name is not known, and contradicts nothing.
    """
    plain = (stored_name(path).replace("\\", "/") for path in (one, other))
    parts = [PurePosixPath(path).parts for path in plain]
    shorter = min(len(each) for each in parts)
    return shorter == 0 or parts[0][-shorter:] == parts[1][-shorter:]


def contradictions(
    stored: Iterable[ImageInfo], listed: Mapping[int, ImageInfo]
) -> Iterator[Contradiction]:
    """Images of one id that are not one image, as they come."""
    for image in stored:
        known = listed.get(image.id)
        if known is None:
            continue
        found = Contradiction(image, known)
        if found.names_differ or (image.width, image.height) != (known.width, known.height):
            yield found


def check_store(store: BoxStore, coco: CocoData, teachers: Sequence[str] | None = None) -> None:
    """Raise DataError where a store and annotations mean other categories, or other images by the
    same ids.

    `teachers` limits the look to what these saw; by default to what anyone did.
    """
    store.check_categories(coco.categories, coco.path)
    check_images(store, coco.by_id, coco.path, teachers)


def check_images(
    store: BoxStore,
    listed: Mapping[int, ImageInfo],
    where: object,
    teachers: Sequence[str] | None = None,
) -> None:
    """Raise DataError where a store means other images by ids that `where` lists."""
    seen = {image for name in teachers or store.teachers for image in images_of(store, name)}
    refuse(contradictions(sorted(seen), listed), f"the store {store.path}", where)


def refuse(contradictions: Iterable[Contradiction], boxes: str, where: object) -> None:
    """Raise DataError if there are any, naming three; `boxes` and `where` are who says them."""
    found = list(contradictions)
    if not found:
        return
    named = "; ".join(map(str, found[:_NAMED]))
    more = f" ({len(found)} images in all)" if len(found) > _NAMED else ""
    raise DataError(
        f"{boxes} holds boxes of other images than {where}: {named}{more}. {_cause(found)}"
    )


def _cause(found: Sequence[Contradiction]) -> str:
    """What most likely went wrong, and what to do."""
    if all(each.names_differ for each in found):
        return (
            "Most likely the boxes are of another split or data set whose ids are counted from the "
            "same number: take the annotations that the teachers were run with, or label this "
            "split into a store of its own"
        )
    turned = all(
        (each.stored.width, each.stored.height) == (each.listed.height, each.listed.width)
        for each in found
    )
    if turned:
        return (
            "Width and height are exchanged: the annotations seem to be in the frame that an EXIF "
            "orientation turns the photos to. Boxes are in pixels of the file as stored; turn the "
            "files themselves and label them again"
        )
    return (
        "Most likely one side was made from resized copies of the photos: label the very files "
        "that the annotations describe"
    )
