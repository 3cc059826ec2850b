"""The whole page: one HTML file that loads nothing."""

from teach_detr.report import mistakes, sections
from teach_detr.report.browser import image_browser
from teach_detr.report.document import document
from teach_detr.report.findings import Findings
from teach_detr.report.markup import Markup, element
from teach_detr.report.samples import Pictures


def render(found: Findings, pictures: Pictures | None) -> str:
    """The page as text. Without pictures it has no browser of images."""
    parts = [
        sections.teachers(found),
        sections.precision(found),
        sections.classes(found),
        sections.scores(found),
        sections.calibration(found),
        mistakes.agreement(found),
        mistakes.errors(found),
        mistakes.missing(found, pictures),
        mistakes.worst(found),
        image_browser(found, pictures) if pictures is not None else None,
    ]
    title = f"Teachers of {found.dataset}"
    return document(title, _facts(found), _links(found, pictures is not None), parts)


def _facts(found: Findings) -> Markup:
    n = len(found.teachers)
    facts = [
        f"{n} teacher" + "s" * (n != 1),
        f"{found.n_images:,} images",
        f"{found.n_boxes:,} boxes",
        "without annotations: no AP, calibration or missing labels"
        if found.annotations is None
        else f"compared with {found.annotations}",
    ]
    return element("p", " · ".join(facts))


def _links(found: Findings, with_images: bool) -> list[tuple[str, str]]:
    """Keys of the sections that the page has, and what the navigation calls them."""
    links = [
        ("teachers", "Teachers"),
        ("ap", "AP"),
        ("classes", "Classes") if found.scores is not None else None,
        ("scores", "Scores"),
        ("calibration", "Calibration"),
        ("agreement", "Agreement"),
        ("errors", "Mistakes") if found.errors is not None else None,
        ("missing", "Missing labels"),
        ("worst", "Worst images"),
        ("images", "Images") if with_images else None,
    ]
    return [link for link in links if link is not None]
