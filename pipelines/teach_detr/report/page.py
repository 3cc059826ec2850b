"""The whole page: one HTML file that loads nothing."""

import base64
import hashlib
from importlib import resources

from teach_detr.report import mistakes, sections
from teach_detr.report.browser import image_browser
from teach_detr.report.findings import Findings
from teach_detr.report.markup import Markup, element, join
from teach_detr.report.samples import Pictures


def render(found: Findings, pictures: Pictures | None) -> str:
    """The page as text. Without pictures it has no browser of images."""
    style, script = _source("page.css"), _source("page.js")
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
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", style),
    )
    body = element(
        "body",
        element("a", "Skip to the numbers", href="#main", class_="skip"),
        element("header", element("h1", title), _facts(found), _theme()),
        _navigation(found, pictures is not None),
        element("main", parts, id="main"),
        element("script", script),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _policy(style: Markup, script: Markup) -> str:
    """Nothing may be loaded; the page's own style and script are allowed by their hashes."""
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
        f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _source(name: str) -> Markup:
    path = resources.files("teach_detr.report") / name
    return Markup(path.read_text(encoding="utf-8"))


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


def _theme() -> Markup:
    options = [element("option", name, value=name) for name in ("auto", "light", "dark")]
    select = element("select", options, id="theme")
    return element("label", "Colours ", select, class_="theme")


def _navigation(found: Findings, with_images: bool) -> Markup:
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
    anchors = [element("a", link[1], href=f"#{link[0]}") for link in links if link is not None]
    return element("nav", join(anchors), aria_label="Sections")
