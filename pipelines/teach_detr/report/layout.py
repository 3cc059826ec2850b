"""What sections are made of: headings, tables, remarks, and teachers with their colours."""

from collections.abc import Iterable, Sequence

from teach_detr.report import charts
from teach_detr.report.findings import Findings, Row
from teach_detr.report.markup import Child, Markup, element

NO_TRUTH = "Needs ground truth: run the report again with --annotations FILE."


def section(key: str, title: str, *children: Child) -> Markup:
    """A section with a heading that the navigation can point to."""
    heading = element("h2", title, id=f"{key}-title")
    return element("section", heading, *children, id=key, aria_labelledby=f"{key}-title")


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Child]]) -> Markup:
    """A table that scrolls by itself on a narrow screen; the first column heads its row."""
    head = element("tr", [element("th", name, scope="col") for name in columns])
    body = [
        element("tr", element("th", row[0], scope="row"), [element("td", cell) for cell in row[1:]])
        for row in rows
    ]
    inner = element(
        "table",
        element("caption", caption),
        element("thead", head),
        element("tbody", body),
    )
    return element("div", inner, class_="scroll", tabindex=0, role="region", aria_label=caption)


def note(text: Child) -> Markup:
    """A remark in small print."""
    return element("p", text, class_="note")


def swatch(found: Findings, teacher: str) -> Markup:
    """A teacher's name with its colour; the fusion has none."""
    names = [row["name"] for row in found.teachers]
    tone = charts.colour(names.index(teacher)) if teacher in names else "kf"
    return element("span", element("i", class_=f"dot {tone}"), teacher, class_="teacher")


def by_teacher(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows of a query, each teacher's together."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["teacher"], []).append(row)
    return found
