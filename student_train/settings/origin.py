"""Where the value of a setting comes from."""

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What set a value; the text is what people and `config.json` read, before any detail."""

    PRESET = "preset"
    FILE = "file"
    ARGUMENT = "argument"
    RECIPE = "recipe"
    """what a value of another setting stands for"""
    CHOSEN = "chosen by the annotations"
    """settings of teachers that nobody gave"""
    TABLE = "table"
    """a table of an experiment's or a run's file"""
    DATA = "data"
    """as many classes as the training annotations have"""
    SHAPES = "shapes in"
    """of the tensors in a checkpoint"""
    WRITTEN = "settings in"
    """beside the weights in a checkpoint"""
    CATEGORIES = "categories"
    """those that an imported checkpoint was trained on"""
    RECORD = "record"
    """a configuration read back"""
    OTHER = ""
    """what earlier and later versions wrote, in their words"""


@dataclass(frozen=True)
class Origin:
    """A kind, and which one of it: the preset's name, the path of a file, the option."""

    kind: Kind
    detail: str = ""

    @property
    def is_asked_for(self) -> bool:
        """Whether somebody typed the value, on a command line or into a file."""
        return self.kind in (Kind.ARGUMENT, Kind.FILE, Kind.TABLE)

    def __str__(self) -> str:
        return f"{self.kind.value} {self.detail}".strip()

    @classmethod
    def parse(cls, text: str) -> "Origin":
        """The inverse of `str`, for `config.json`."""
        for kind in Kind:
            if kind.value and (text == kind.value or text.startswith(f"{kind.value} ")):
                return cls(kind, text.removeprefix(kind.value).lstrip())
        return cls(Kind.OTHER, text)


ARGUMENT = Origin(Kind.ARGUMENT)
DATA = Origin(Kind.DATA)
