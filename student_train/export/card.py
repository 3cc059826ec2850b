"""The model card of an exported student: what it is, and what it learned from whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isnan
from pathlib import Path

from box_store.places.locations import RemotePath, as_typed
from student_train.config import NO_TEACHERS
from student_train.runs.run_folder import RunRecord, SavedRun
from student_train.runs.trained import TrainedStudent

CARD = "README.md"
_UNKNOWN = "not recorded"


def record_of(run: Path | RemotePath) -> RunRecord | None:
    """What a run says of itself; None for a weights file that stands alone."""
    place = as_typed(run)
    return SavedRun(place).read() if place.is_dir() else None


def model_card(
    student: TrainedStudent, record: RunRecord | None, name: str, licence: str | None
) -> str:
    """A card in the hub's form: YAML between dashes, then Markdown.

    `licence` is that of the weights, as the hub abbreviates it; None: the card does not say.
    """
    config = student.config
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
        "## Data\n\n" + "\n".join(_data(student, record)),
        "## Teachers\n\n" + "\n".join(_teachers(student, record)),
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


def _data(student: TrainedStudent, record: RunRecord | None) -> Iterator[str]:
    data = student.config.data
    # names alone: where it lay on somebody's disk is nobody else's business
    root = data.root or data.train_annotations
    yield f"- trained on: {Path(str(root)).name if root else _UNKNOWN}, split {data.train_split}"
    fingerprints = {} if record is None else record.fingerprints
    for key, words in (
        ("train_annotations", "sha256 of the annotations"),
        ("boxes", "key of the selection of teacher boxes"),
        ("checkpoint", "sha256 of the weights it was made from"),
        ("hub", "made from"),
        ("init", "sha256 of the weights it began with"),
        ("init_hub", "began with"),
    ):
        if fingerprints.get(key):
            yield f"- {words}: `{fingerprints[key]}`"


def _teachers(student: TrainedStudent, record: RunRecord | None) -> Iterator[str]:
    settings = student.config.teachers
    taught = settings.names != NO_TEACHERS
    online = [Path(each).name for each in settings.online if taught]
    if record is None:
        yield f"Their licences are {_UNKNOWN}: the weights stand alone."
    elif record.teachers:
        yield "It learned from the boxes of other detectors too:\n"
        yield "| teacher | licence |"
        yield "| --- | --- |"
        for teacher, licence in record.teachers.items():
            yield f"| {teacher} | {licence} |"
    elif "boxes" in record.fingerprints:
        yield f"It learned from the boxes of other detectors, whose licences are {_UNKNOWN}."
    elif not online:
        yield "None."
    if online:
        yield f"\nIt learned from detections made while it trained: {', '.join(online)}."


def _metrics(metrics: Mapping[str, float], split: str | None) -> Iterator[str]:
    if not metrics:
        yield f"{_UNKNOWN.capitalize()}."
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
