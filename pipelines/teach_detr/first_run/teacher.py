"""A teacher looked at before the run: its classes against those of the data set, and its speed."""

import time
from dataclasses import dataclass, replace

import numpy as np

from box_store.forms.protocol import Split
from box_store.pixels import ImageError, find_image, read_pixels
from teach_detr.first_run.words import proposals
from teacher_infer.teachers.class_map import ClassMap
from teacher_infer.teachers.loaded import load_teacher
from teacher_infer.teachers.parsing import parse_teacher
from teacher_infer.teachers.spec import TeacherSpec

_TIMED = 4


@dataclass(frozen=True)
class Looked:
    """A teacher as it should be asked. proposed: what the word list adds to its class map.

    seconds: an image, on this machine; None where no image could be read.
    """

    spec: TeacherSpec
    proposed: dict[str, str]
    classes: ClassMap
    seconds: float | None
    licence: str

    @property
    def knows_any(self) -> bool:
        """Whether it finds a class of the data set."""
        return len(self.classes.unmapped) < len(self.classes.mapping)


def look(text: str, split: Split) -> Looked:
    """Load a teacher, `NAME=ADAPTER:MODEL[,key=value...]`, and show it a few images of a split.

    Raises UsageError, AdapterError, MissingLibrary.
    """
    categories = split.coco.categories
    spec = parse_teacher(text)
    asked = spec.asking(categories.names)
    loaded = load_teacher(asked.adapter_spec("cpu" if spec.device == "auto" else spec.device, 1))
    first = ClassMap.build(loaded.class_names, categories, spec.class_map)
    proposed = proposals(first.unmapped, first.unseen)
    made = replace(spec, class_map={**proposed, **spec.class_map})
    classes = ClassMap.build(loaded.class_names, categories, made.class_map)
    images = _images(split)
    seconds = None
    if images:
        loaded.predict(images[:1])
        start = time.perf_counter()
        loaded.predict(images)
        seconds = (time.perf_counter() - start) / len(images)
    return Looked(made, proposed, classes, seconds, loaded.licence)


def _images(split: Split) -> list[np.ndarray]:
    found = []
    for image in split.coco.images[:_TIMED]:
        try:
            found.append(read_pixels(find_image(split.images, image.file_name)))
        except ImageError:
            continue
    return found
