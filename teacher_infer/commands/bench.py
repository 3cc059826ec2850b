"""The command `bench`."""

import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from box_store.errors import UsageError
from teacher_infer.bench.inputs import SLOW_TEACHER, draw_images, repeated, write_tiny_detector
from teacher_infer.bench.memory import MemoryResult, memory_of_run
from teacher_infer.bench.rate import BenchResult, bench
from teacher_infer.commands.options import (
    Annotations,
    Data,
    Images,
    Splits,
    Teachers,
    TeachersFile,
    read_specs,
)
from teacher_infer.commands.terminal import AsJson, print_json, say
from teacher_infer.data.dataset import Dataset, load_dataset
from teacher_infer.teachers.spec import TeacherSpec
from teacher_infer.workers.local_pool import LocalPool
from teacher_infer.workers.pool import WorkerPool

# drawn images: as many, of that size, where time is measured, and where memory is
_PHOTOS, _STAMPS = (64, 640, 480), (64, 64, 48)


def bench_service(
    data: Data = None,
    split: Splits = None,
    images: Images = None,
    annotations: Annotations = None,
    teacher: Teachers = None,
    teachers: TeachersFile = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each side runs")] = 3,
    count: Annotated[
        int | None,
        typer.Option(min=1, help="Label so many images: the data set's files, over and over"),
    ] = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="Label once, and print memory as the run goes on")
    ] = False,
    local: Annotated[bool, typer.Option("--local", help="Without Ray")] = False,
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="Write the JSON to this file too")] = None,
) -> None:
    """Compare the service with a bare loop that decodes and predicts: images a second, ratio.

    Both label the whole data set in turn, with as many threads, the service in this process and
    through Ray; nothing is kept. Without a data set images are drawn, without a teacher a small
    network with random weights stands in (for --memory, one that computes next to nothing).

    Example: teacher-infer bench --data coco --split val2017
    --teacher yolox=onnx:yolox_nano.onnx,format=yolox

    Example: teacher-infer bench --memory --count 120000
    """
    with tempfile.TemporaryDirectory(prefix="teach-detr-bench-") as folder:
        scratch = Path(folder)
        if not (teacher or teachers):
            teacher = [f"tiny={write_tiny_detector(scratch)}" if memory else SLOW_TEACHER]
        specs = read_specs(teacher, teachers)
        if len(specs) != 1 or (specs[0].workers != 1 and not memory):
            raise UsageError(
                "bench compares one teacher with one worker with a loop: give just that"
            )
        if data is None and images is None:
            data, split = (
                draw_images(scratch / "data", *(_STAMPS if memory else _PHOTOS)),
                ["drawn"],
            )
        dataset = load_dataset(data, split or [], images, annotations)
        dataset = dataset if count is None else repeated(dataset, count)
        found = _measure(dataset, specs[0], rounds, memory, local)
    if out is not None:
        out.write_text(json.dumps(found.as_dict(), indent=1) + "\n")
    if as_json:
        print_json(found.as_dict())
    else:
        say(found.text())


def _measure(
    dataset: Dataset, spec: TeacherSpec, rounds: int, memory: bool, local: bool
) -> BenchResult | MemoryResult:
    console = Console(stderr=True)
    with _pools(spec, local) as pools:
        if memory:
            # the last: Ray's, where there is Ray
            return memory_of_run(dataset, spec, list(pools.values())[-1](), console)
        return bench(dataset, spec, pools, console, rounds)


@contextmanager
def _pools(spec: TeacherSpec, local: bool) -> Iterator[dict[str, Callable[[], WorkerPool]]]:
    """What a run may choose from. Ray is started once: it is idle while others have their turn."""
    pools: dict[str, Callable[[], WorkerPool]] = {"local": LocalPool}
    if local or importlib.util.find_spec("ray") is None:
        yield pools
        return
    from teacher_infer.workers.ray_cluster import RayCluster
    from teacher_infer.workers.ray_pool import RayPool

    cluster = RayCluster(None)
    try:
        yield pools | {"Ray": lambda: RayPool([spec])}
    finally:
        cluster.leave()
