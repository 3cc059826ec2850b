"""What files of weights say of the classes that they were trained on."""

from collections.abc import Mapping, Sequence
from typing import Any

from box_store.categories import Categories, Category, ClassSpace
from box_store.coco.categories80 import COCO_CATEGORIES
from student_train.models.class_rows import padded
from student_train.models.official.foreign import translate
from student_train.models.official.names import settings_from_shapes
from student_train.models.weights_file import OURS, WeightsFile
from student_train.runs.run_folder import class_space_from_plain


def class_names_of(about: Mapping[str, Any]) -> tuple[str, ...]:
    """Name of every logit of a student of ours, from its `config` and `classes`."""
    space = class_space_from_plain(about["classes"])
    return padded(space.names, about.get("config", {}).get("model", {}).get("n_classes", 0))


def names_in_file(file: WeightsFile, family: str) -> tuple[str, ...] | None:
    """Name of every logit of a file of `family`: as it says, else COCO's where their number is
    COCO's. None where that leaves it open.
    """
    n_classes = settings_from_shapes(family, translate(file.weights).state).get("n_classes", 0)
    return logit_names(file.beside.get(OURS), written_names(file), n_classes)


def logit_names(ours: object, written: object, n_classes: int) -> tuple[str, ...] | None:
    """The same from what our own exports say of themselves and the list of names in a file."""
    if isinstance(ours, Mapping) and "classes" in ours:
        return class_names_of(ours)
    coco = [ClassSpace("raw", COCO_CATEGORIES), ClassSpace("contiguous", COCO_CATEGORIES)]
    spaces = [*spaces_of_names(written), *coco]
    return next((each.names for each in spaces if each.n_classes == n_classes), None)


def written_names(file: WeightsFile) -> object:
    """The list of class names in a file, as RF-DETR (`args`) and mmdet (`meta`) write it."""
    if "class_names" in file.settings:
        return file.settings["class_names"]
    meta = file.beside.get("meta")
    written = meta.get("dataset_meta") if isinstance(meta, Mapping) else None
    if not isinstance(written, Mapping):
        return None
    return written.get("classes", written.get("CLASSES"))


def spaces_of_names(names: object) -> list[ClassSpace]:
    """What logits mean where a file names its classes: they count from 0, or leave the first logit
    unused, as RF-DETR's do.
    """
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        return []
    if not names or len(set(names)) < len(names):
        return []
    return [
        ClassSpace("raw", Categories(tuple(Category(i, n) for i, n in enumerate(names, first))))
        for first in (0, 1)
    ]
