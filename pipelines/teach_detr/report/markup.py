"""HTML made of elements: whatever is not markup already is escaped, so nothing can be forgotten."""

import html
import json
from collections.abc import Iterable
from typing import Any

# elements of HTML without an end tag; those of SVG need theirs
_VOID = frozenset({"img", "input", "meta"})


class Markup(str):
    """Text that is HTML already. Only `element`, `join` and files of this package make some."""

    __slots__ = ()


Child = Markup | str | int | float | None | Iterable["Child"]


def element(tag: str, *children: Child, **attributes: Any) -> Markup:
    """An element of HTML or SVG.

    Children that are no `Markup` are escaped; None is left out and iterables are flattened. An
    underscore in an attribute's name stands for a hyphen, one at its end for nothing (`class_`,
    `for_`). Attributes with the value None or False are left out, with True they have no value.
    """
    parts = [tag]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        name = key.rstrip("_").replace("_", "-")
        parts.append(name if value is True else f'{name}="{html.escape(str(value))}"')
    opening = f"<{' '.join(parts)}>"
    return Markup(opening if tag in _VOID else f"{opening}{join(children)}</{tag}>")


def join(children: Iterable[Child]) -> Markup:
    """Children one after the other, as in `element`."""
    return Markup("".join(_flattened(children)))


def json_text(value: Any) -> Markup:
    """JSON that may stand inside a `script` element: no text in it can end the element.

    `<`, `>` and `&` are written as escapes, so neither `</script>` nor `<!--` occurs; all that is
    not ASCII too, U+2028 and U+2029 among it. Raises ValueError for a number that is not finite.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _flattened(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            yield child
        elif isinstance(child, str | int | float):
            yield html.escape(str(child))
        else:
            yield from _flattened(child)
