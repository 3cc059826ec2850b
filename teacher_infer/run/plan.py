"""What a run will do: units of images, and the record that ties boxes to their origin."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from box_store.store.records import TeacherRecord, split_units
from teacher_infer.adapters.protocol import texts_of
from teacher_infer.data.dataset import Dataset
from teacher_infer.data.images import ImageTask
from teacher_infer.teachers.class_map import ClassMap
from teacher_infer.teachers.spec import TeacherSpec

# a unit is what a killed run loses and what a worker is handed: small data sets still get enough of
# them to share, large ones get files of a sensible size
_SMALLEST_UNIT, _LARGEST_UNIT, _UNITS_WANTED = 32, 512, 64

# the option of a record that holds what a loaded teacher said of its runtime
RUNTIME = "runtime"


@dataclass(frozen=True)
class Unit:
    """Images that are committed together, as one pair of Parquet files."""

    index: int
    tasks: tuple[ImageTask, ...]


def default_unit_size(n_images: int) -> int:
    """Images a unit, for a data set of that size: 32 up to 2048 images, 512 from 32 k."""
    wanted = -(-n_images // _UNITS_WANTED)
    rounded = -(-wanted // _SMALLEST_UNIT) * _SMALLEST_UNIT
    return min(max(rounded, _SMALLEST_UNIT), _LARGEST_UNIT)


def make_units(tasks: Sequence[ImageTask], size: int) -> list[Unit]:
    """Cut the image list, in its order, into units of `size` images (the last may be smaller)."""
    return [Unit(index, tuple(part)) for index, part in enumerate(split_units(tasks, size))]


def make_record(
    spec: TeacherSpec,
    dataset: Dataset,
    unit_size: int,
    *,
    class_map: ClassMap,
    weights: str,
    licence: str,
    versions: dict[str, str],
    runtime: Mapping[str, str],
) -> TeacherRecord:
    """The record of a teacher: everything its boxes depend on, and nothing that they do not.

    `runtime` is empty for records of versions that did not note it. Files are named without their
    folder, for their content is in the hash: moving a model must not look like changing it. Device,
    batch size, threads and workers are left out.
    """
    options: dict[str, object] = {
        "score_floor": spec.score_floor,
        "nms_iou": spec.nms_iou,
        "top_k": spec.top_k,
    }
    options |= spec.views.options()
    options |= {key: _bare(value) for key, value in spec.options.items()}
    if runtime:
        options[RUNTIME] = dict(runtime)
    if spec.prompts:
        options["prompts"] = {name: _asked(words) for name, words in spec.prompts.items()}
    if spec.negatives:
        options["not"] = list(spec.negatives)
    return TeacherRecord(
        name=spec.name,
        adapter=spec.adapter,
        model=_bare(spec.model),
        weights_sha256=weights,
        licence=licence,
        class_map=class_map.mapping,
        options=options,
        versions=versions,
        image_ids_sha256=dataset.images_sha256,
        unit_size=unit_size,
        n_images=len(dataset.tasks),
        n_units=-(-len(dataset.tasks) // unit_size),
    )


def runtime_of(record: TeacherRecord) -> Mapping[str, str]:
    """What a record says of the teacher's runtime; nothing where it is older than that."""
    return record.options.get(RUNTIME, {})


def _asked(words: str) -> str | list[str]:
    texts = texts_of(words)
    return words if len(texts) == 1 else list(texts)


def _bare(text: str) -> str:
    """A path without its folder; any other text as it is."""
    path = Path(text).expanduser()
    return path.name if path.exists() else text
