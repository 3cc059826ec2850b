"""What a trainer reads: a choice of boxes in one memory-mapped file."""

from box_store.selection.file import Selection, TeacherBoxes
from box_store.selection.selecting import SelectionSpec, TeacherFilter, select

__all__ = ["Selection", "SelectionSpec", "TeacherBoxes", "TeacherFilter", "select"]
