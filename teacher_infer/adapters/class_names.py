"""Class names of teachers: the list most detectors were trained on, and lists from files."""

import json
from pathlib import Path

from teacher_infer.adapters.loading import existing_file
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec

_COCO_80 = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light,
fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow,
elephant, bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee,
skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard,
tennis racket, bottle,
wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed,
dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven,
toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush
"""

# COCO's detection categories in the order of their ids
COCO_80 = tuple(name.strip() for name in _COCO_80.split(","))


# ids of things that were never annotated, 0 among them
_GAPS = frozenset({0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
_OF_IDS = iter(COCO_80)
COCO_91 = tuple("N/A" if index in _GAPS else next(_OF_IDS) for index in range(91))
"""COCO's names by category id, as models have them that number classes by it"""


def class_names(spec: AdapterSpec) -> tuple[str, ...] | None:
    """The names in the file that the option classes= names; None where it wasn't given."""
    path = spec.option("classes")
    return None if path is None else read_class_names(existing_file(path, "file of class names"))


def read_class_names(path: Path) -> tuple[str, ...]:
    """Names in class-index order: a JSON list of strings, or text with one name a line (UTF-8).

    Raises AdapterError for a file that is neither, or empty.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        names = json.loads(text) if path.suffix == ".json" else text.rstrip().splitlines()
    except (OSError, ValueError) as error:
        raise AdapterError(f"{path}: can't be read as class names ({error})") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise AdapterError(f"{path}: expected a JSON list of class names")
    names = [name.strip() for name in names]
    if not names or not all(names):
        raise AdapterError(f"{path}: expected one class name a line, found none or an empty line")
    return tuple(names)
