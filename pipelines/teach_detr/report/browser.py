"""The browser of sample images: pictures and controls; `browser.js` draws and toggles the boxes."""

from typing import Any

from teach_detr.report.charts import colour
from teach_detr.report.findings import Findings
from teach_detr.report.layout import note, section
from teach_detr.report.markup import Markup, element, json_text
from teach_detr.report.samples import Pictures, Sample

TRUTH = "truth"
_START_SCORE = 0.5


def image_browser(found: Findings, pictures: Pictures) -> Markup:
    """Controls, a figure for every sample, and the data of the boxes as JSON."""
    if not pictures.samples:
        return section("images", "Images", note(_unread(pictures) or "No image was seen."))
    sets = _sets(found)
    return section(
        "images",
        "Images",
        element("noscript", note("Boxes are drawn by the page's script, which is switched off.")),
        _controls(sets, _categories(found, pictures)),
        element(
            "div",
            [_figure(at, sample) for at, sample in enumerate(pictures.samples)],
            class_="gallery",
            id="gallery",
        ),
        note(
            f"{len(pictures.samples)} of {found.n_images} images: those with most mistakes, with "
            "probably missing labels, and others drawn at random. "
            + (_unread(pictures) if pictures.unreadable else "")
        ),
        element("script", json_text(_data(found, pictures)), type="application/json", id="data"),
    )


def _data(found: Findings, pictures: Pictures) -> dict[str, Any]:
    names = [name for name, _ in _sets(found)]
    return {
        "sets": [{"name": name, "tone": tone} for name, tone in _sets(found)],
        "classes": {str(key): name for key, name in _categories(found, pictures)},
        "images": [
            {
                "width": sample.width,
                "height": sample.height,
                # large to small, so that a small box lies on top of a large one
                "boxes": [
                    [names.index(who), *rest]
                    for who, *rest in sorted(sample.boxes, key=_area, reverse=True)
                ],
            }
            for sample in pictures.samples
        ],
    }


def _area(box: tuple[str, int, float, float, float, float, float]) -> float:
    _, _, _, x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1)


def _sets(found: Findings) -> list[tuple[str, str]]:
    """Names of the box sets that can be toggled, each with the class of its colour."""
    sets = [(row["name"], colour(at)) for at, row in enumerate(found.teachers)]
    return [(TRUTH, "kt"), *sets] if found.annotations is not None else sets


def _categories(found: Findings, pictures: Pictures) -> list[tuple[int, str]]:
    """Classes that occur in the samples, by name."""
    present = {box[1] for sample in pictures.samples for box in sample.boxes}
    named = [(key, found.categories.get(key, str(key))) for key in present]
    return sorted(named, key=lambda item: (item[1], item[0]))


def _controls(sets: list[tuple[str, str]], categories: list[tuple[int, str]]) -> Markup:
    teachers = element(
        "fieldset",
        element("legend", "Boxes of"),
        [_checkbox("set", at, name, tone) for at, (name, tone) in enumerate(sets)],
    )
    classes = element(
        "details",
        element("summary", "Classes"),
        element(
            "fieldset",
            element("legend", "Classes", class_="hidden"),
            element("button", "All", type="button", id="all-classes"),
            element("button", "None", type="button", id="no-classes"),
            [_checkbox("class", key, name) for key, name in categories],
        ),
    )
    slider = element(
        "div",
        element("label", "Score from ", for_="score"),
        element(
            "input",
            type="range",
            id="score",
            min=0,
            max=1,
            step=0.05,
            value=_START_SCORE,
        ),
        element("output", f"{_START_SCORE:.2f}", for_="score", id="score-value"),
        element("label", element("input", type="checkbox", id="names"), " Names"),
        class_="row",
    )
    counted = element("p", "", id="shown", class_="note", aria_live="polite")
    return element("form", teachers, slider, classes, counted, class_="controls", id="controls")


def _checkbox(kind: str, value: int, name: str, tone: str | None = None) -> Markup:
    box = element("input", type="checkbox", name=kind, value=value, checked=True)
    return element("label", box, element("i", class_=f"dot {tone}") if tone else None, " ", name)


def _figure(at: int, sample: Sample) -> Markup:
    return element(
        "figure",
        element(
            "div",
            element(
                "img",
                src=sample.picture,
                alt=f"Image {sample.image_id}, {sample.file_name}",
                width=sample.width,
                height=sample.height,
            ),
            element(
                "svg",
                class_="boxes",
                viewBox=f"0 0 {sample.width} {sample.height}",
                aria_hidden="true",
            ),
            class_="frame",
        ),
        element(
            "figcaption",
            element("span", sample.file_name, class_="file"),
            element("span", f"{sample.why}; ", element("span", "", class_="count"), class_="note"),
            element(
                "button",
                "Enlarge",
                type="button",
                class_="enlarge",
                aria_pressed="false",
                aria_label=f"Enlarge {sample.file_name}",
            ),
        ),
        data_image=at,
    )


def _unread(pictures: Pictures) -> str:
    if not pictures.unreadable:
        return ""
    name, reason = pictures.unreadable[0]
    n = len(pictures.unreadable)
    return f"{n} image{'s' * (n != 1)} could not be read, first {name}: {reason}."
