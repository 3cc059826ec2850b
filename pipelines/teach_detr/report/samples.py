"""Images that a report shows: which ones, small enough to be embedded, and their boxes."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from box_store.query import open_store, run_sql
from teach_detr.report.crops import crop, data_uri
from teach_detr.report.findings import Findings, ReportOptions, Row, Say
from teacher_infer.data.images import ImageError, ImageTask, load_image

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_LEAST_SCORE = 0.05
_BOXES_PER_TEACHER = 60

WORST = "many mistakes"
MISSING = "probably missing label"
DRAWN = "drawn at random"


@dataclass(frozen=True)
class Sample:
    """One image of the browser; size in pixels of the original, `picture` a JPEG as a data URI.

    boxes: (set, category id, score, x1, y1, x2, y2) in pixels of the original; the set is a
    teacher's name or `truth`.
    """

    image_id: int
    file_name: str
    width: int
    height: int
    why: str
    picture: str
    boxes: list[tuple[str, int, float, float, float, float, float]]


@dataclass(frozen=True)
class Pictures:
    """What could be shown, and the images that could not be, each with its reason.

    crops: data URIs by (image id, x1, y1, x2, y2) of a probably missing label.
    """

    samples: list[Sample]
    crops: dict[tuple[Any, ...], str]
    unreadable: list[tuple[str, str]]


def take_samples(
    store: Path,
    annotations: Path | None,
    images: Path,
    found: Findings,
    options: ReportOptions,
    say: Say,
    split: str | None = None,
) -> Pictures:
    """Choose images with the seed, decode them, and look up their boxes.

    A quarter at most are those with the most mistakes, another those with probably missing labels;
    the rest is drawn at random. An image that cannot be read is named, not fatal.
    """
    connection = open_store(store, annotations, split=split)
    try:
        sizes = _seen_images(connection)
        chosen = choose(list(sizes), found, options)
        boxes = _boxes(connection, list(chosen), annotations is not None)
    finally:
        connection.close()
    unreadable: dict[str, str] = {}

    def pixels(image_id: int) -> Image.Image | None:
        try:
            return _pixels(sizes[image_id], images)
        except ImageError as error:
            unreadable[sizes[image_id]["file_name"]] = str(error)
            return None

    samples: list[Sample] = []
    for at, (image_id, why) in enumerate(chosen.items(), start=1):
        say(f"image {at} of {len(chosen)}")
        picture, row = pixels(image_id), sizes[image_id]
        if picture is not None:
            uri = data_uri(picture, options.image_px)
            size = (row["width"], row["height"])
            samples.append(
                Sample(image_id, row["file_name"], *size, why, uri, boxes.get(image_id, []))
            )
    crops: dict[tuple[Any, ...], str] = {}
    for row in found.missing_labels or []:
        picture = pixels(row["image_id"])
        if picture is not None:
            corners = [row[name] for name in ("x1", "y1", "x2", "y2")]
            crops[crop_key(row)] = crop(picture, corners)
    return Pictures(samples, crops, list(unreadable.items()))


def choose(ids: Sequence[int], found: Findings, options: ReportOptions) -> dict[int, str]:
    """Image ids with the reason each is shown, at most `options.n_samples`, the same every time."""
    known = set(ids)
    chosen: dict[int, str] = {}
    worst = found.disagreements if found.worst_images is None else found.worst_images
    for rows, why in ((worst, WORST), (found.missing_labels or [], MISSING)):
        listed = dict.fromkeys(row["image_id"] for row in rows if row["image_id"] in known)
        new = [image_id for image_id in listed if image_id not in chosen]
        chosen |= dict.fromkeys(new[: options.n_samples // 4], why)
    rest = sorted(known - chosen.keys())
    n_rest = min(len(rest), options.n_samples - len(chosen))
    return chosen | dict.fromkeys(random.Random(options.seed).sample(rest, n_rest), DRAWN)


def crop_key(row: Row) -> tuple[Any, ...]:
    """What identifies a row of the query `missing_labels`."""
    return tuple(row[name] for name in ("image_id", "x1", "y1", "x2", "y2"))


def _seen_images(connection: "DuckDBPyConnection") -> dict[int, Row]:
    rows = run_sql(
        connection,
        "SELECT i.image_id, i.file_name, i.width, i.height FROM images i WHERE i.width > 0 AND "
        "i.image_id IN (SELECT image_id FROM runs WHERE status = 'ok') ORDER BY i.image_id",
    )
    return {row["image_id"]: row for row in rows.to_pylist()}


def _boxes(
    connection: "DuckDBPyConnection", ids: list[int], with_truth: bool
) -> dict[int, list[Any]]:
    columns = "teacher, image_id, category_id, score, x1, y1, x2, y2"
    rows = run_sql(
        connection,
        f"SELECT {columns} FROM boxes WHERE list_contains($ids, image_id) "
        "AND score >= $floor AND rank < $top ORDER BY image_id, teacher, rank",
        {"ids": ids, "floor": _LEAST_SCORE, "top": _BOXES_PER_TEACHER},
    ).to_pylist()
    if with_truth:
        rows += run_sql(
            connection,
            f"SELECT {columns} FROM truth WHERE list_contains($ids, image_id) AND NOT iscrowd "
            "ORDER BY image_id, rank",
            {"ids": ids},
        ).to_pylist()
    found: dict[int, list[Any]] = {}
    for row in rows:
        corners = (round(row[name], 1) for name in ("x1", "y1", "x2", "y2"))
        box = (row["teacher"], row["category_id"], round(row["score"], 3), *corners)
        found.setdefault(row["image_id"], []).append(box)
    return found


def _pixels(row: Row, images: Path) -> Image.Image:
    task = ImageTask(row["image_id"], row["file_name"], row["width"], row["height"], str(images))
    return Image.fromarray(load_image(task))
