"""Guesses of machines that a label tool hands back: no labels until a person has said so."""

from dataclasses import dataclass

from box_store.coco.rows import GUESS, Problems
from box_store.forms.protocol import Options, one_of

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
        return cls(one_of(options, "guesses", ("drop", "keep"), "drop or keep", "drop") == "keep")

    def drop(self, where: str, problems: Problems) -> bool:
        """Whether the guess there is left out; the image is then not labelled wholly."""
        if not self.keep:
            problems.note(GUESS, where)
        return not self.keep
