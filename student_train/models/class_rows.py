"""What belongs to single classes in a student, and how it finds its class in another student.

Rows of class heads and of label embeddings mean nothing but their class. Between tables of other
classes, or of the same ones in another order, they go by name.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

# parameters with a row a class; label embeddings and softmax heads have one more, of no class
_CLASS_ROWS = re.compile(
    r"(?:^|\.)(?:classes(?:\.\d+|\.layers\.2)?\.(?:weight|bias)|label_embedding\.weight)$"
)


@dataclass(frozen=True)
class ClassRows:
    """Rows of a student of some classes, for a student of others."""

    source: tuple[str, ...] | None
    """name of every logit of the weights, `""` where unused; None: nobody knows"""
    target: tuple[str, ...]
    """name of every logit of the student"""

    @property
    def same(self) -> bool:
        """Whether every row means what it meant."""
        return self.source == self.target

    @property
    def pairs(self) -> dict[int, int]:
        """Row of the student -> row of the weights, for names that both have once."""
        there = _once(self.source or ())
        return {row: there[name] for name, row in _once(self.target).items() if name in there}

    def fit(self, key: str, entry: Tensor, initial: Tensor) -> Tensor | None:
        """What the student takes for its parameter `key`: `entry` where its rows are no classes,
        else `initial` with the rows of known names replaced. None where no row is known.

        `entry` of another width is handed on as it is, for whoever compares shapes.
        """
        if self.same or not _CLASS_ROWS.search(key) or entry.shape[1:] != initial.shape[1:]:
            return entry
        pairs = self.pairs
        if not pairs or self.source is None:
            return None
        fitted = initial.clone()
        for row, there in pairs.items():
            fitted[row] = entry[there]
        n, n_there = len(self.target), len(self.source)
        if len(initial) == n + 1 and len(entry) == n_there + 1:
            # of no class: padding of label embeddings, no-object of softmax heads
            fitted[n] = entry[n_there]
        return fitted

    def describe(self) -> str:
        """For people."""
        wanted = [name for name in self.target if name]
        if self.source is None:
            return (
                "class head: anew, the file does not name its classes (`student-train import "
                "--annotations FILE` gives it names, and --init takes the run it writes)"
            )
        found = len(wanted) if self.same else len(self.pairs)
        text = f"class head: {found} of {len(wanted)} classes by name"
        new = (
            [] if self.same else [n for i, n in enumerate(self.target) if n and i not in self.pairs]
        )
        if new:
            text += f", the rest anew ({', '.join(new[:3])}{', ...' if len(new) > 3 else ''})"
        return text


def padded(names: Sequence[str], n_classes: int) -> tuple[str, ...]:
    """Names of all logits, where a student has more of them than classes."""
    return (*names, *[""] * (n_classes - len(names)))


def _once(names: Sequence[str]) -> dict[str, int]:
    """Row by name, for names that stand there once."""
    counts = Counter(names)
    return {name: row for row, name in enumerate(names) if name and counts[name] == 1}
