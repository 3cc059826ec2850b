"""Splits in one store: exporters number the images of every split from 1, so an image is its split
and its id.

A store of format 1, and results whose annotations name no split, have images of which the split is
not known. An image that several splits list, as `train` and `trainval` do, has the names of all,
joined by `+`.
"""

from collections.abc import Iterable, Mapping

from box_store.coco.annotations import ImageInfo
from box_store.errors import DataError
from box_store.places.image_files import same_name

_JOIN = "+"


def joined_name(splits: Iterable[str]) -> str:
    """The split of an image that several list, in the order of their names."""
    return _JOIN.join(dict.fromkeys(splits))


def are_one(one: str, other: str) -> bool:
    """Whether two names are those of one split, or of splits that share the images; False where one
    is not known.
    """
    if not (one and other):
        return False
    return one == other or not set(one.split(_JOIN)).isdisjoint(other.split(_JOIN))


def same_image(one: ImageInfo, other: ImageInfo) -> bool:
    """Whether two images of one id are one: by their splits; where one of these is not known, by
    file name and size; where both are not, by file name (two sizes are a contradiction then, which
    whoever joins them refuses).
    """
    if one.split and other.split:
        return are_one(one.split, other.split)
    if one.split == other.split:
        return same_name(one.file_name, other.file_name)
    size, other_size = ((image.width, image.height) for image in (one, other))
    return size == other_size and same_name(one.file_name, other.file_name)


def collision(images: Iterable[ImageInfo]) -> tuple[ImageInfo, ImageInfo] | None:
    """Two images of one id that are not one, if there are any."""
    known: dict[int, list[ImageInfo]] = {}
    for image in images:
        others = known.setdefault(image.id, [])
        for other in others:
            if not same_image(image, other):
                return other, image
        others.append(image)
    return None


def collision_words(found: tuple[ImageInfo, ImageInfo]) -> str:
    """`image 1 is a.png in train and b.png in valid`."""
    first, second = (f"{image.file_name} in {image.split or '(no split)'}" for image in found)
    return f"image {found[0].id} is {first} and {second}"


def refuse(found: tuple[ImageInfo, ImageInfo] | None, where: object) -> None:
    """Raise DataError for a collision in the store `where`."""
    if found is not None:
        raise DataError(
            f"the store {where} holds splits whose image ids collide: {collision_words(found)}. "
            "Say which split is meant: --split NAME, or the annotations of one"
        )


def labels_of(images: Iterable[ImageInfo]) -> Mapping[int, str]:
    """The split by id, of images whose ids do not collide: the fullest name that each is held under
    by some teacher.
    """
    found: dict[int, str] = {}
    for image in images:
        if len(image.split) >= len(found.get(image.id, "")):
            found[image.id] = image.split
    return found
