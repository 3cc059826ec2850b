"""Words for people that depend on numbers."""

from collections.abc import Sequence


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 teacher`, `2 teachers`; `plural` where an s is not enough."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def some_of(names: Sequence[str], n: int = 5) -> str:
    """The first `n` names, with dots if there are more."""
    return ", ".join(names[:n]) + (", ..." if len(names) > n else "")
