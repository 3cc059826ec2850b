"""The queue as a page: a card an image with its doubts as crops, and classes hardly found."""

from collections.abc import Sequence

from PIL import Image

from box_store.coco.annotations import ImageInfo
from box_store.pixels import ImageError, find_image, read_pixels
from box_store.places.locations import Location
from student_train.evaluation.tables import percent
from teach_detr.report.crops import crop, data_uri
from teach_detr.report.document import document
from teach_detr.report.layout import note, section, table
from teach_detr.report.markup import Markup, element
from teach_detr.review.queue import LOW_RECALL, Doubt, Page, Queue

_IMAGE_PX = 240
_CROPS = 8
_TITLES = {
    "missing": "no label here",
    "class": "another class",
    "unfound": "nobody finds this label",
    "guess": "a guess",
}


def render(queue: Queue, store: str, images: Location | None, most: int) -> str:
    """The page as text, with pictures of the first `most` images where their folder is given."""
    unread: list[str] = []
    cards = [
        _card(at, page, _pixels(page.image, images, unread) if at <= most else None)
        for at, page in enumerate(queue.pages, 1)
    ]
    parts = [
        section(
            "queue",
            "Look at these first",
            note(
                "Sorted by the number of corrections to be expected in an image. A box is what "
                "teachers see, or a label that none of them finds; the number is the chance that "
                "there is something to correct, for an image that nobody labelled how undecided "
                "the teachers are."
            ),
            note(_about_scores(queue)),
            note(f"{len(unread)} images could not be read, first {unread[0]}") if unread else None,
            cards or note("Nothing: teachers and labels agree."),
        ),
        section("classes", "Classes", _classes(queue)),
    ]
    facts = [
        f"{len(queue.pages)} of {queue.n_images:,} images",
        f"{', '.join(queue.teachers)}",
        *(f"{n:,} x {_TITLES[kind]}" for kind, n in queue.counts.items() if n),
    ]
    return document(
        f"Review of {store}",
        element("p", " · ".join(facts)),
        [("queue", "Queue"), ("classes", "Classes")],
        parts,
    )


def _about_scores(queue: Queue) -> str:
    raw = [name for name in queue.teachers if name not in queue.calibrated]
    if not raw:
        return "Scores are calibrated: a score is the chance of being right."
    return (
        f"Scores of {', '.join(raw)} are not calibrated, and no chances: run `teach-detr "
        "calibrate` to have a queue in a better order."
    )


def _pixels(image: ImageInfo, images: Location | None, unread: list[str]) -> Image.Image | None:
    if images is None:
        return None
    try:
        path = find_image(images, image.file_name)
        return Image.fromarray(read_pixels(path, (image.width, image.height)))
    except ImageError as error:
        unread.append(f"{image.file_name}: {error}")
        return None


def _card(at: int, page: Page, picture: Image.Image | None) -> Markup:
    name = page.image.file_name
    crops = [_doubt(doubt, picture, name) for doubt in page.doubts[:_CROPS]]
    more = len(page.doubts) - len(crops)
    shown = None
    if picture is not None:
        # the crops are cut by now; what is embedded is small
        shown = element("img", src=data_uri(picture, _IMAGE_PX), alt=name, loading="lazy")
    state = "" if page.labelled else ", not labelled"
    return element(
        "article",
        element("h3", f"{at}. {name}"),
        note(
            f"image {page.image.id}, {page.image.width} x {page.image.height}{state}; "
            f"{page.expected:.1f} corrections expected"
            + (f"; {more} more doubts" if more > 0 else "")
        ),
        element("div", shown, element("ul", crops, class_="cards"), class_="review"),
    )


def _doubt(doubt: Doubt, picture: Image.Image | None, name: str) -> Markup:
    what = doubt.category
    if doubt.kind == "class":
        what = f"{doubt.category}, labelled {doubt.label}"
    who = f"{doubt.score:.2f} by {', '.join(doubt.teachers)}" if doubt.score is not None else ""
    uri = crop(picture, doubt.corners) if picture is not None else None
    return element(
        "li",
        element("img", src=uri, alt=f"{what} in {name}", loading="lazy") if uri else None,
        element("strong", what),
        element("span", f"{_TITLES[doubt.kind]}: {percent(doubt.chance)} %"),
        element("span", who, class_="note") if who else None,
    )


def _classes(queue: Queue) -> Markup | Sequence[Markup]:
    if not queue.recalls:
        return note("No labels to compare with.")
    rows = [(row.name, row.labels, row.found, percent(row.recall)) for row in queue.recalls]
    low = [row.name for row in queue.recalls if row.recall < LOW_RECALL]
    text = (
        f"Teachers find less than half of the labels of {', '.join(low)}: there they are of little "
        "help, and a label that they miss says nothing."
        if low
        else "Teachers find at least half of the labels of every class."
    )
    columns = ("class", "labels", "found", "share, in percent")
    return [note(text), table("Labels that some teacher finds", columns, rows)]
