"""All forms that are written as folders. A new one is a module and a line here; COCO and FiftyOne
have more to say and stand by themselves.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, get_args

from box_store.outgoing import cvat, label_studio, labelme, voc, yolo
from box_store.outgoing.sheet import Account, Part

FolderForm = Literal["yolo", "voc", "labelme", "cvat", "label-studio"]
FOLDER_FORMS: tuple[FolderForm, ...] = get_args(FolderForm)


class Writer(Protocol):
    """Writes splits with these classes into an empty folder; about: whose labels these are.

    Raises DataError for names that cannot be written, OSError.
    """

    def __call__(
        self, parts: Sequence[Part], classes: Sequence[str], out: Path, about: str
    ) -> Account: ...


WRITERS: dict[FolderForm, Writer] = {
    "yolo": yolo.write,
    "voc": voc.write,
    "labelme": labelme.write,
    "cvat": cvat.write,
    "label-studio": label_studio.write,
}
