"""Which image is it? An id alone does not say: exporters count the images of every split from 1.

Whoever joins the boxes of a store with annotations asks here first which images of the store the
annotations speak of: by the name of their split, and by the file's name and size, beside the id.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from box_store.coco.annotations import CocoData, ImageInfo
from box_store.errors import DataError, nearest
from box_store.places.image_files import same_name
from box_store.store import splits
from box_store.store.reader import seen_images
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


def seen_by(store: BoxStore, coco: CocoData, teachers: Sequence[str] | None = None) -> BoxStore:
    """The store as annotations see it: where the ids of its splits collide, the splits that the
    annotations are of; otherwise all of it.

    Raises DataError where store and annotations mean other categories, or other images by the same
    ids, and where it can not be told which of several images is meant. `teachers` limits the look
    to what these saw; by default to what anyone did.
    """
    store.check_categories(coco.categories, coco.path)
    return showing(store, coco.images, coco.path, teachers)


def of_split(store: BoxStore, split: str) -> BoxStore:
    """One split of a store. Raises DataError, naming those that there are, where it has none so
    called.
    """
    names = {image.split for image in seen_images(store)}
    found = [name for name in names if splits.are_one(name, split)]
    if not found:
        known = sorted(names - {""})
        listed = f"it has {', '.join(known)}" if known else "its images name none"
        raise DataError(f"{store.path} has no split {split!r}: {listed}.{nearest(split, known)}")
    return store.showing(found)


def showing(
    store: BoxStore,
    listed: Sequence[ImageInfo],
    where: object,
    teachers: Sequence[str] | None = None,
) -> BoxStore:
    """The same for a list of images, of `where`."""
    whole = seen_images(store)
    looked = whole if teachers is None else seen_images(store, set(teachers))
    by_id = {image.id: image for image in listed}
    # of all teachers: a split that one of them saw is not taken for another's of the same names
    asked = {image.split for image in listed}
    own = {
        image.split for image in whole if any(splits.are_one(image.split, split) for split in asked)
    }
    if splits.collision(whole) is None:
        refuse(contradictions(looked, by_id), f"the store {store.path}", where)
        return store
    return store.showing(_splits_of(looked, own, by_id, where, store))


def _splits_of(
    stored: Sequence[ImageInfo],
    own: Set[str],
    by_id: Mapping[int, ImageInfo],
    where: object,
    store: BoxStore,
) -> Set[str]:
    """The names, in a store whose ids collide, of the splits that images are listed of.

    own: those that the list names.
    """
    boxes = f"the store {store.path}"
    refuse(contradictions((image for image in stored if image.split in own), by_id), boxes, where)
    shared: dict[str, list[ImageInfo]] = {}
    for image in stored:
        if image.id in by_id and image.split not in own:
            shared.setdefault(image.split, []).append(image)
    fitting = {
        name: images
        for name, images in shared.items()
        if next(contradictions(images, by_id), None) is None
    }
    if own:
        # images whose split nobody noted are known by name and size, as they always were
        return own | (fitting.keys() & {""})
    if shared and not fitting:
        every = (image for images in shared.values() for image in images)
        refuse(contradictions(every, by_id), boxes, where)
    both = splits.collision(image for images in fitting.values() for image in images)
    if both is not None:
        raise DataError(
            f"{boxes} and {where}: {splits.collision_words(both)}, and which is meant is not said. "
            "Name the data set and its split: --data SRC --split NAME"
        )
    return fitting.keys()


def check_same(store: BoxStore, listed: Sequence[ImageInfo], where: object) -> None:
    """Raise DataError where a store means, by the split and id of images to be labelled, others."""
    by_key: dict[str, dict[int, ImageInfo]] = {}
    for image in listed:
        by_key.setdefault(image.split, {})[image.id] = image
    seen = seen_images(store)
    for split, by_id in by_key.items():
        held = (i for i in seen if i.split == split or splits.are_one(i.split, split))
        refuse(contradictions(held, by_id), f"the store {store.path}", where)


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
            "same number: take the annotations that the teachers were run with, or name the split "
            "when it is labelled (--split NAME), so that one store holds both"
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
