"""Guesses of machines that a label tool hands back: no labels until a person has said so."""

from dataclasses import dataclass

from box_store.coco.rows import GUESS, Problems
from box_store.errors import UsageError
from box_store.forms.protocol import Options

OPTION = {
    "guesses": "drop (default), or keep: boxes of a machine that nobody confirmed are labels too"
}


@dataclass
class Guesses:
    """Decides on them, and counts them."""

    keep: bool = False

    @classmethod
    def of(cls, options: Options) -> "Guesses":
        """As the user asked. Raises UsageError for another word."""
        asked = options.get("guesses", "drop")
        if asked not in ("drop", "keep"):
            raise UsageError(f"guesses={asked!r}: expected drop or keep")
        return cls(asked == "keep")

    def drop(self, where: str, problems: Problems) -> bool:
        """Whether the guess there is left out; the image is then not labelled wholly."""
        if not self.keep:
            problems.note(GUESS, where)
        return not self.keep
