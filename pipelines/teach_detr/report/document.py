"""The frame of a page: one HTML file that loads nothing."""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources

from teach_detr.report.markup import Child, Markup, element, join


def document(title: str, facts: Child, links: Sequence[tuple[str, str]], main: Child) -> str:
    """The page as text.

    `facts` stands below the title, `links` are keys of sections with what the navigation calls
    them, and `main` is what the page is about.
    """
    style, script = _source("page.css"), _source("page.js")
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
    anchors = [element("a", text, href=f"#{key}") for key, text in links]
    body = element(
        "body",
        element("a", "Skip to the numbers", href="#main", class_="skip"),
        element("header", element("h1", title), facts, _theme()),
        element("nav", join(anchors), aria_label="Sections"),
        element("main", main, id="main"),
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


def _theme() -> Markup:
    options = [element("option", name, value=name) for name in ("auto", "light", "dark")]
    select = element("select", options, id="theme")
    return element("label", "Colours ", select, class_="theme")
