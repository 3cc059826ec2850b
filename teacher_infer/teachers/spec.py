"""What is asked of one teacher: what makes its boxes, and how it is run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

from box_store.errors import UsageError, nearest
from box_store.store.records import check_teacher_name
from teacher_infer.adapters.protocol import AdapterSpec, ViewSpec
from teacher_infer.adapters.registry import adapter_info

# long enough for tens of gigabytes over a network
_LOAD_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class TeacherSpec:
    """One teacher of a run: what makes its boxes (recorded), and how it is run (free to change).

    name: under which the store keeps its boxes.
    adapter, model: which framework, and which model of it: a file, a configuration, or a name.
    score_floor, nms_iou, top_k: which detections are kept; recorded.
    flip, scales, tile, overlap, whole, merge, merge_iou: which views of an image it is shown, and
        how their boxes become one set (see `teacher_infer.teachers.views`); recorded.
    options: what the adapter alone understands (`format`, `image_size`, ...); recorded.
    class_map: teacher class name -> data-set class name or category id, "" to leave the class out;
        for the names that do not match by themselves. Recorded.
    prompts: class name -> the words that an open-vocabulary model is asked for in its place, for
        the names that say too little; several texts, of which the best counts, between bars.
        negatives: texts whose boxes are left out. Recorded.
    vocabulary: the data set's class names, which such a model is asked for; see `asking`.
    licence: of the weights, where the adapter cannot know it. Recorded.
    device: "auto" takes a GPU where there is one.
    batch_size: images a call of the framework.
    workers: processes that hold this teacher; num_cpus, num_gpus: what each of them is given by Ray
        (None: an even share of the machine); threads: what each computes with (None: its num_cpus).
    batch_timeout: seconds without an answer after which a worker is killed; None derives them from
        the batches so far, infinity waits for ever.
    load_timeout: seconds that loading may take before the teacher fails; None is 600.
    """

    name: str
    adapter: str
    model: str
    score_floor: float = AdapterSpec.score_floor
    nms_iou: float | Literal["none"] | None = AdapterSpec.nms_iou
    top_k: int = AdapterSpec.top_k
    flip: bool = ViewSpec.flip
    scales: tuple[float, ...] = ViewSpec.scales
    merge: str = ViewSpec.merge
    merge_iou: float = ViewSpec.merge_iou
    tile: int | None = ViewSpec.tile
    overlap: float = ViewSpec.overlap
    whole: bool = ViewSpec.whole
    options: Mapping[str, str] = field(default_factory=dict)
    class_map: Mapping[str, str] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    negatives: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()
    licence: str | None = None
    device: str = "auto"
    batch_size: int = AdapterSpec.batch_size
    workers: int = 1
    num_cpus: float | None = None
    num_gpus: float | None = None
    threads: int | None = None
    batch_timeout: float | None = None
    load_timeout: float | None = None

    def __post_init__(self) -> None:
        check_teacher_name(self.name)
        adapter_info(self.adapter)
        if not self.model:
            raise UsageError(f"teacher {self.name}: no model after {self.adapter}:")
        try:
            _ = self.views
        except UsageError as error:
            raise UsageError(f"teacher {self.name}: {error}") from error

    @property
    def views(self) -> ViewSpec:
        """What it is shown of each image."""
        return ViewSpec(**{one.name: getattr(self, one.name) for one in fields(ViewSpec)})

    @property
    def load_limit_s(self) -> float:
        """Seconds that loading may take; infinity waits for ever."""
        return _LOAD_TIMEOUT_S if self.load_timeout is None else self.load_timeout

    def asking(self, class_names: Iterable[str]) -> "TeacherSpec":
        """The same teacher, told which classes the data set has.

        Raises:
            UsageError: a prompt is for a class that the data set lacks.
        """
        vocabulary = tuple(class_names)
        for name in self.prompts:
            if name not in vocabulary:
                raise UsageError(
                    f"teacher {self.name}: prompts.{name}: the data set has no class of that name."
                    f"{nearest(name, vocabulary)}"
                )
        return replace(self, vocabulary=vocabulary)

    def adapter_spec(self, device: str, threads: int) -> AdapterSpec:
        """What the adapter is given on a worker that computes on `device` with so many threads.

        Files get their absolute paths: a worker may run in another folder.
        """
        info = adapter_info(self.adapter)
        options = {
            key: _absolute(value) if key in info.file_options else value
            for key, value in self.options.items()
        }
        return AdapterSpec(
            adapter=self.adapter,
            model=_absolute(self.model, folder=info.model_is_folder),
            device=device,
            score_floor=self.score_floor,
            nms_iou=self.nms_iou,
            top_k=self.top_k,
            batch_size=self.batch_size,
            threads=threads,
            options=options | ({"licence": self.licence} if self.licence else {}),
            prompts={name: self.prompts.get(name) for name in self.vocabulary},
            negatives=self.negatives,
            views=self.views,
        )


def _absolute(text: str, folder: bool = False) -> str:
    """The path of an existing file (or folder), or the text itself: models may also be names."""
    path = Path(text).expanduser()
    return str(path.absolute()) if path.is_file() or (folder and path.is_dir()) else text


def check_names(specs: Iterable[TeacherSpec]) -> list[TeacherSpec]:
    """The teachers of one run; UsageError when there is none, or when two share a name."""
    specs = list(specs)
    if not specs:
        raise UsageError(
            "no teacher: give --teacher NAME=ADAPTER:MODEL (repeat it for more), or --teachers "
            "FILE.toml. `teacher-infer list` shows the adapters, with examples"
        )
    names = [spec.name for spec in specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"two teachers are called {', '.join(twice)}: names must differ")
    return specs
