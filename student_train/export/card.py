"""The model card of an exported student: what it is, and what it learned from whom."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isnan
from pathlib import Path

from box_store.places.locations import RemotePath, as_typed
from student_train.config import NO_TEACHERS
from student_train.models.hub.folder import has_hub_weights
from student_train.runs.run_folder import RunRecord, SavedRun
from student_train.runs.trained import TrainedStudent

CARD = "README.md"
UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Lineage:
    """What a student learned from, and whose that is."""

    data: str
    """data set and split by name"""
    hashes: Mapping[str, str]
    """of data and weights, by what they are of"""
    teachers: Mapping[str, str] | None
    """licences by teacher; empty without teachers, None where nobody recorded them"""
    online: tuple[str, ...]
    """teachers that were asked while it trained"""
    stands_alone: bool
    """whether there are weights without their run"""

    @classmethod
    def of(cls, student: TrainedStudent, record: RunRecord | None) -> Lineage:
        """As far as a run tells; `record` is None for weights that stand alone."""
        data, settings = student.config.data, student.config.teachers
        # names alone: where it lay on somebody's disk is nobody else's business
        root = data.root or data.train_annotations
        fingerprints = {} if record is None else record.fingerprints
        teachers: Mapping[str, str] | None = None
        if record is not None and (record.teachers or "boxes" not in fingerprints):
            teachers = record.teachers
        taught = settings.names != NO_TEACHERS
        return cls(
            f"{Path(str(root)).name if root else UNKNOWN}, split {data.train_split}",
            {words: fingerprints[key] for key, words in _HASHES if fingerprints.get(key)},
            teachers,
            tuple(Path(each).name for each in settings.online if taught),
            record is None,
        )

    def notes(self, licence: str | None) -> dict[str, str]:
        """For a file's metadata; `licence` is that of the weights."""
        teachers = UNKNOWN if self.teachers is None else json.dumps(dict(self.teachers))
        notes = {"trained_on": self.data, "teachers": teachers}
        if self.online:
            notes["teachers_online"] = json.dumps(self.online)
        if licence is not None:
            notes["licence"] = licence
        return notes | dict(self.hashes)


_HASHES = (
    ("train_annotations", "sha256 of the annotations"),
    ("boxes", "key of the selection of teacher boxes"),
    ("checkpoint", "sha256 of the weights it was made from"),
    ("hub", "made from"),
    ("init", "sha256 of the weights it began with"),
    ("init_hub", "began with"),
)


def record_of(run: Path | RemotePath) -> RunRecord | None:
    """What a run says of itself; None for a weights file that stands alone."""
    place = as_typed(run)
    alone = not place.is_dir() or (isinstance(place, Path) and has_hub_weights(place))
    return None if alone else SavedRun(place).read()


def model_card(
    student: TrainedStudent, record: RunRecord | None, name: str, licence: str | None
) -> str:
    """A card in the hub's form: YAML between dashes, then Markdown.

    `licence` is that of the weights, as the hub abbreviates it; None: the card does not say.
    """
    config, origin = student.config, Lineage.of(student, record)
    header = ["library_name: transformers", "pipeline_tag: object-detection"]
    if licence is not None:
        header.append(f"license: {licence}")
    header += ["tags:", "- object-detection", "- teach-detr", f"- {config.model.family}"]
    classes = ", ".join(each for each in student.class_space.names if each)
    parts = [
        "\n".join(["---", *header, "---"]),
        f"# {name}",
        f"A `{config.model.family}` on `{config.model.backbone}` that finds "
        f"{len(student.class_space.categories)} classes: {classes}.",
        _USE.format(name=name),
        "## Data\n\n" + "\n".join(_data(origin)),
        "## Teachers\n\n" + "\n".join(_teachers(origin)),
        "## Metrics\n\n" + "\n".join(_metrics(student.metrics, config.data.val_split)),
        "## Training\n\n" + "\n".join(_training(student, record)),
    ]
    return "\n\n".join(parts) + "\n"


_USE = """```python
from transformers import AutoImageProcessor, AutoModelForObjectDetection

processor = AutoImageProcessor.from_pretrained("{name}")
model = AutoModelForObjectDetection.from_pretrained("{name}")
output = model(**processor(image, return_tensors="pt"))
boxes = processor.post_process_object_detection(output, target_sizes=[(image.height, image.width)])
```"""


def _data(origin: Lineage) -> Iterator[str]:
    yield f"- trained on: {origin.data}"
    for words, digest in origin.hashes.items():
        yield f"- {words}: `{digest}`"


def _teachers(origin: Lineage) -> Iterator[str]:
    if origin.teachers:
        yield "It learned from the boxes of other detectors too:\n"
        yield "| teacher | licence |"
        yield "| --- | --- |"
        for teacher, licence in origin.teachers.items():
            yield f"| {teacher} | {licence} |"
    elif origin.teachers is None and origin.stands_alone:
        yield f"Their licences are {UNKNOWN}: the weights stand alone."
    elif origin.teachers is None:
        yield f"It learned from the boxes of other detectors, whose licences are {UNKNOWN}."
    elif not origin.online:
        yield "None."
    if origin.online:
        yield f"\nIt learned from detections made while it trained: {', '.join(origin.online)}."


def _metrics(metrics: Mapping[str, float], split: str | None) -> Iterator[str]:
    if not metrics:
        yield f"{UNKNOWN.capitalize()}."
        return
    yield f"COCO metrics on split {split}, in percent:\n"
    yield "| " + " | ".join(metrics) + " |"
    yield "| " + " | ".join("---:" for _ in metrics) + " |"
    yield "| " + " | ".join(_percent(value) for value in metrics.values()) + " |"


def _percent(value: float | None) -> str:
    # a metric of objects that there are none of is not a number
    return "-" if value is None or isnan(value) else f"{100 * value:.1f}"


def _training(student: TrainedStudent, record: RunRecord | None) -> Iterator[str]:
    config = student.config
    yield f"- preset `{config.preset}`, {config.epochs:g} epochs in batches of {config.batch_size}"
    if record is not None:
        of = ("teach-detr", "torch", "timm", "python")
        said = [f"{name} {record.versions[name]}" for name in of if name in record.versions]
        yield f"- {', '.join(said)}"
