"""`HEIGHTxWIDTH` as options have it."""

from box_store.errors import UsageError


def parse_size(text: str, smallest: int = 1) -> tuple[int, int]:
    """Height and width in pixels. Raises UsageError for what is none."""
    sides = text.lower().split("x")
    if (
        len(sides) != 2
        or not text.isascii()
        or not all(side.isdecimal() and int(side) >= smallest for side in sides)
    ):
        raise UsageError(f"--size is HEIGHTxWIDTH of at least {smallest}x{smallest}, got {text!r}")
    return int(sides[0]), int(sides[1])
