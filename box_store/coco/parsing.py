"""The content of a COCO annotation file to rows: what is read, and what is refused by name."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from box_store.categories import Categories
from box_store.coco.rows import GUESS, NOT_A_BOX, Rows
from box_store.errors import DataError
from box_store.places.locations import Location

_LISTS = ("images", "categories", "annotations")
_CROWD = {"0": False, "1": True, "": False, "false": False, "true": True}
_LARGEST = 2**63 - 1

Guesses = Literal["refuse", "drop", "keep"]
"""what becomes of annotations that carry a score: a person's label has none"""
WIDEST = 2**31 - 1


def read_rows(
    document: Any, path: Location, *, named: bool = True, guesses: Guesses = "refuse"
) -> tuple[Categories, Rows, Callable[[int, int], str]]:
    """Categories, rows to be checked, and what names a box in a message.

    A document without `annotations` lists images to be labelled. named: images need a `file_name`
    (or, as in LVIS, a `coco_url`, whose last two parts it then is), annotations an `id`.
    guesses: annotations with a score other than 1 are left out and their images count as not
    labelled (`drop`), or are labels (`keep`).

    Raises DataError, naming the row and the field.
    """
    _check_lists(document, path)
    try:
        categories = Categories.from_coco(document["categories"])
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    rows = Rows()
    images = _read_images(path, document["images"], rows, named)
    listed = document.get("annotations") or []
    if guesses == "refuse":
        _refuse_scores(path, listed)
    _read_annotations(path, listed, rows, images, categories, named, guesses)
    return categories, rows, describer(list(images))


def describer(image_ids: Sequence[int]) -> Callable[[int, int], str]:
    """Names a box in a message, from the index of its image and its annotation id."""
    return lambda at, number: f"annotation {number} (image {image_ids[at]})"


def _check_lists(document: Any, path: Location) -> None:
    if not isinstance(document, Mapping):
        hint = " This looks like a results file." if isinstance(document, list) else ""
        raise DataError(
            f"{path}: expected a COCO annotation file, an object with the lists "
            f"{', '.join(_LISTS)}; got a {type(document).__name__}.{hint}"
        )
    missing = [key for key in _LISTS[:2] if not isinstance(document.get(key), list)]
    if missing:
        raise DataError(
            f"{path}: a COCO annotation file needs the lists {', '.join(_LISTS)}; "
            f"{' and '.join(missing)} missing"
        )
    if not isinstance(document.get("annotations") or [], list):
        raise DataError(f"{path}: `annotations` is no list but {_short(document['annotations'])}")


def name_of(file_name: Any, coco_url: Any) -> Any:
    """What an image is called: as LVIS has it, by the last two parts of its URL."""
    if file_name is None and isinstance(coco_url, str):
        return "/".join(coco_url.split("/")[-2:])
    return file_name


def _read_images(path: Location, listed: list[Any], rows: Rows, named: bool) -> dict[int, int]:
    """Index of every image by its id, in the order of the file."""
    images: dict[int, int] = {}
    for position, row in enumerate(listed):
        _need(path, "image", position, row, ("id",))
        image_id = _id(path, f"image {position} has the id", row["id"])
        name = name_of(row.get("file_name"), row.get("coco_url"))
        if not named and name is None:
            name = f"image {image_id}"
        needed = ("file_name", "width", "height")
        _need(path, "image", position, row if name is None else {**row, "file_name": name}, needed)
        if not isinstance(name, str) or not name:
            raise DataError(f"{path}: image {image_id} has no file name (got {_short(name)})")
        width, height = _side(row["width"]), _side(row["height"])
        if width is None or height is None:
            raise DataError(
                f"{path}: image {image_id} ({name}) must be at least 1 x 1 pixels, got "
                f"{_short(row['width'])} x {_short(row['height'])}"
            )
        if image_id in images:
            raise DataError(
                f"{path}: image id {image_id} occurs twice: {rows.name(images[image_id])} and "
                f"{name}"
            )
        unlabelled = row.get("labelled") is False
        images[image_id] = rows.add_image(image_id, name, width, height, unlabelled=unlabelled)
    return images


def _read_annotations(
    path: Location,
    listed: list[Any],
    rows: Rows,
    images: dict[int, int],
    categories: Categories,
    named: bool,
    guesses: Guesses,
) -> None:
    seen: set[int] = set()
    keys = (
        ("id", "image_id", "category_id", "bbox") if named else ("image_id", "category_id", "bbox")
    )
    for position, row in enumerate(listed):
        _need(path, "annotation", position, row, keys)
        # ids name rows in messages, and do nothing else
        key = _id(path, f"annotation number {position} has the id", row.get("id", position))
        if key in seen:
            raise DataError(f"{path}: annotation id {key} occurs twice")
        seen.add(key)
        image = images.get(_whole(row["image_id"]))  # type: ignore[arg-type]
        if image is None:
            raise DataError(
                f"{path}: annotation {key} is of image {_short(row['image_id'])}, which is not "
                "listed"
            )
        category_id = _whole(row["category_id"])
        if category_id is None or category_id not in categories:
            raise DataError(
                f"{path}: annotation {key} has the unknown category id "
                f"{_short(row['category_id'])}; {categories.describe_ids()}"
            )
        if guesses == "drop" and has_score(row.get("score")):
            rows.problems.note(GUESS, f"annotation {key}, score {row['score']}")
            rows.mark_unlabelled(image)
            continue
        box = _numbers(row["bbox"])
        if box is None:
            where = f"annotation {key} (image {_whole(row['image_id'])})"
            rows.problems.note(NOT_A_BOX, f"{where}: {_short(row['bbox'])}")
            continue
        crowd = _is_crowd(path, key, row.get("iscrowd"))
        rows.add_box(image, category_id, box, key, crowd=crowd, area=_area(row.get("area")))


def has_score(score: Any) -> bool:
    """Whether an annotation's score says that a machine made it: 1 and nothing do not."""
    return isinstance(score, int | float) and score != 1


def _refuse_scores(path: Location, listed: Sequence[Any]) -> None:
    scored = [row for row in listed if isinstance(row, dict) and has_score(row.get("score"))]
    if scored:
        raise DataError(
            f"{path}: {len(scored)} of {len(listed)} annotations carry a score (the first: "
            f"annotation {_short(scored[0].get('id'))}, {_short(scored[0]['score'])}), as what a "
            "machine found does and a label does not. Say what they are, behind the path: "
            ",guesses=drop leaves them out and counts their images as not labelled, ,guesses=keep "
            "takes them as labels. Boxes of a teacher come in by `teacher-infer import`"
        )


def _need(path: Location, what: str, position: int, row: Any, keys: Iterable[str]) -> None:
    if not isinstance(row, dict):
        raise DataError(f"{path}: {what} {position} is no object but {_short(row)}")
    lacking = [key for key in keys if key not in row]
    if lacking:
        label = f"{what} {row['id']}" if "id" in row else f"{what} number {position}"
        raise DataError(f"{path}: {label} lacks {' and '.join(lacking)}")


def _whole(value: Any) -> int | None:
    """A whole number, also one written as a float; None for anything else."""
    if type(value) is int:
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def _id(path: Location, what: str, value: Any) -> int:
    number = _whole(value)
    if number is None:
        raise DataError(f"{path}: {what} {_short(value)}, not a whole number")
    if not -_LARGEST - 1 <= number <= _LARGEST:
        raise DataError(f"{path}: {what} {_short(value)}, which does not fit 64 bits")
    return number


def _side(value: Any) -> int | None:
    number = _whole(value)
    return number if number is not None and 0 < number <= WIDEST else None


def _is_crowd(path: Location, key: int, value: Any) -> bool:
    if value is None or isinstance(value, bool | int | float):
        if value in (None, 0, 1):
            return bool(value)
    elif isinstance(value, str) and value.strip().lower() in _CROWD:
        return _CROWD[value.strip().lower()]
    raise DataError(f"{path}: annotation {key} has iscrowd {_short(value)}, expected 0 or 1")


def _area(value: Any) -> float:
    """The annotated area; NaN, which stands for the box's own, where it is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _numbers(bbox: Any) -> tuple[float, float, float, float] | None:
    if not isinstance(bbox, list | tuple) or len(bbox) != 4:
        return None
    for value in bbox:
        if type(value) is not float and (type(value) is not int or abs(value) > _LARGEST):
            return None
    x, y, width, height = (float(value) for value in bbox)
    if not (
        math.isfinite(x) and math.isfinite(y) and math.isfinite(width) and math.isfinite(height)
    ):
        return None
    return x, y, width, height


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
