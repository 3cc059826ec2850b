"""Charts as plain SVG. Colours come from the style sheet, by classes that follow the teacher."""

import math
from collections.abc import Sequence

from teach_detr.report.findings import Row
from teach_detr.report.markup import Markup, element, join

# the style sheet defines so many colours, k0 to k7, and patterns of lines
N_COLOURS = 8
_PLOT_PX = 200
_LEFT_PX, _TOP_PX, _BOTTOM_PX = 34, 8, 24


def colour(index: int) -> str:
    """Class of the colour of the teacher at that place."""
    return f"k{index % N_COLOURS}"


def bar(share: float | None, tone: str) -> Markup:
    """A bar that fills `share` (0..1) of its cell; decoration for a number beside it."""
    width = 0.0 if share is None else 100 * min(max(share, 0.0), 1.0)
    return element(
        "svg",
        element("rect", class_="track", width=100, height=8),
        element("rect", class_=tone, fill="currentColor", width=f"{width:.2f}", height=8),
        class_="bar",
        viewBox="0 0 100 8",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def histogram(rows: Sequence[Row], tone: str, label: str, n_bands: int = 20) -> Markup:
    """Boxes by score; the height is the logarithm, as low scores are a hundred times as many."""
    counts = {round(row["from_score"] * n_bands): row["boxes"] for row in rows}
    top = max(1, math.ceil(math.log10(max(counts.values(), default=1) + 1)))
    step = _PLOT_PX / n_bands
    bars = [
        element(
            "rect",
            x=f"{_LEFT_PX + band * step + 0.5:.1f}",
            y=f"{_TOP_PX + _PLOT_PX * (1 - _log_height(count, top)):.1f}",
            width=f"{step - 1:.1f}",
            height=f"{_PLOT_PX * _log_height(count, top):.1f}",
            fill="currentColor",
            class_=tone,
        )
        for band, count in sorted(counts.items())
    ]
    powers = [(10**power, f"{10**power}" if power < 4 else f"1e{power}") for power in range(top)]
    ticks = [(_log_height(count, top), text) for count, text in powers]
    return _plot(label, [*bars, *_left_ticks(ticks), *_bottom_ticks()])


def reliability(
    rows: Sequence[Row], tone: str, label: str, calibrated: Sequence[Row] = ()
) -> Markup:
    """Precision over score: on the diagonal, a score is the chance of being right.

    The area of a point grows with the share of boxes in its band. `calibrated`: the same of
    calibrated scores, dashed and hollow.
    """
    diagonal = element("line", x1=_x(0), y1=_y(0), x2=_x(1), y2=_y(1), class_="diagonal")
    ticks = _left_ticks([(value, f"{value:g}") for value in (0, 0.5, 1)])
    curves = [*_curve(rows, tone), *_curve(calibrated, f"{tone} calibrated")]
    return _plot(label, [diagonal, *curves, *ticks, *_bottom_ticks()])


def _curve(rows: Sequence[Row], tone: str) -> list[Markup]:
    """A line through the bands' points, then the points."""
    n_boxes = max(1, sum(row["boxes"] for row in rows))
    points = [(_x(row["mean_score"]), _y(row["precision"])) for row in rows]
    marks = [
        element(
            "circle",
            cx=f"{x:.1f}",
            cy=f"{y:.1f}",
            r=f"{2.5 + 7 * math.sqrt(row['boxes'] / n_boxes):.1f}",
            fill="currentColor",
            stroke="currentColor",
            class_=f"{tone} point",
        )
        for (x, y), row in zip(points, rows, strict=True)
    ]
    line = element(
        "polyline",
        points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points),
        class_=f"{tone} curve",
        stroke="currentColor",
    )
    return [line, *marks] if rows else []


def _plot(label: str, children: Sequence[Markup]) -> Markup:
    width, height = _LEFT_PX + _PLOT_PX + 8, _TOP_PX + _PLOT_PX + _BOTTOM_PX
    frame = join(
        [
            element("line", x1=_x(0), y1=_y(0), x2=_x(1), y2=_y(0), class_="axis"),
            element("line", x1=_x(0), y1=_y(0), x2=_x(0), y2=_y(1), class_="axis"),
        ]
    )
    return element(
        "svg",
        element("title", label),
        frame,
        children,
        class_="plot",
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=label,
    )


def _left_ticks(ticks: Sequence[tuple[float, str]]) -> list[Markup]:
    return [
        element("text", text, x=_LEFT_PX - 5, y=f"{_y(at) + 4:.1f}", text_anchor="end")
        for at, text in ticks
    ]


def _bottom_ticks() -> list[Markup]:
    y = _TOP_PX + _PLOT_PX + 16
    return [
        element("text", f"{at:g}", x=f"{_x(at):.1f}", y=y, text_anchor="middle")
        for at in (0, 0.5, 1)
    ]


def _log_height(count: int, top: int) -> float:
    # one box shows as a little, none as nothing
    return math.log10(count + 1) / top


def _x(share: float) -> float:
    return _LEFT_PX + _PLOT_PX * share


def _y(share: float) -> float:
    return _TOP_PX + _PLOT_PX * (1 - share)
