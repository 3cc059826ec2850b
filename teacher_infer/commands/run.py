"""The commands `plan` and `run`."""

import signal
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from box_store.errors import UsageError
from box_store.identity import check_same
from box_store.patience import if_it_takes
from box_store.places.locations import location
from box_store.store.store import BoxStore
from teacher_infer.commands.options import (
    Annotations,
    Data,
    Images,
    RedoBad,
    Splits,
    Store,
    Takeover,
    Teachers,
    TeachersFile,
    UnitSize,
    read_specs,
)
from teacher_infer.commands.report import plan_row, print_plan, print_run, run_row
from teacher_infer.commands.terminal import AsJson, complain, print_json, stdout
from teacher_infer.data.dataset import Dataset, load_dataset
from teacher_infer.run.job import Job
from teacher_infer.run.plan import make_record
from teacher_infer.run.prepare import describe, prepare, probe
from teacher_infer.run.progress import make_reporter
from teacher_infer.run.service import Service
from teacher_infer.teachers.spec import TeacherSpec
from teacher_infer.workers.choose_pool import choose_pool
from teacher_infer.workers.local_pool import LocalPool
from teacher_infer.workers.pool import WorkerPool


def plan(
    store: Store,
    data: Data = None,
    split: Splits = None,
    images: Images = None,
    annotations: Annotations = None,
    teacher: Teachers = None,
    teachers: TeachersFile = None,
    unit_size: UnitSize = None,
    redo_bad: RedoBad = False,
    as_json: AsJson = False,
) -> None:
    """Say what `run` would do: images, units, class maps, hashes, time. Writes nothing.

    A teacher that the store doesn't know yet is loaded once, to learn its classes.

    Example: teacher-infer plan --data coco --split train2017 --store boxes
    --teacher yolox=onnx:yolox_nano.onnx,format=yolox
    """
    specs = read_specs(teacher, teachers)
    dataset = load_dataset(data, split or [], images, annotations)
    _plan(store, dataset, specs, unit_size, redo_bad, as_json)


def run(
    store: Store,
    data: Data = None,
    split: Splits = None,
    images: Images = None,
    annotations: Annotations = None,
    teacher: Teachers = None,
    teachers: TeachersFile = None,
    unit_size: UnitSize = None,
    redo_bad: RedoBad = False,
    local: Annotated[
        bool, typer.Option("--local", help="One worker in this process, without Ray")
    ] = False,
    isolate: Annotated[
        bool,
        typer.Option(
            "--isolate", help="--local, with workers in processes that may crash or hang alone"
        ),
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(help="Running Ray cluster (HOST:PORT or auto) whose nodes see the images"),
    ] = None,
    takeover: Takeover = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="The same as `plan`")] = False,
    as_json: AsJson = False,
) -> None:
    """Label a data set with one or more teachers; what is in the store already is not done again.

    Stop it at any time, even with kill -9: the same command goes on. A bad image is recorded with
    its error and skipped. Ends with 1 if a teacher, or part of its images, could not be done.

    Example: teacher-infer run --data coco --split train2017 --store boxes
    --teacher yolox=onnx:yolox_nano.onnx,format=yolox,workers=2
    --teacher rcnn=mmdet:faster-rcnn_r50_fpn_1x_coco,weights=rcnn.pth,device=cuda
    """
    local = local or isolate
    if local and address:
        raise UsageError("--local runs without Ray, --address needs it: give one of them")
    specs = read_specs(teacher, teachers)
    dataset = load_dataset(data, split or [], images, annotations)
    if dry_run:
        _plan(store, dataset, specs, unit_size, redo_bad, as_json)
        return
    box_store = BoxStore.open_or_create(store, dataset.categories, dataset.info)
    check_same(box_store, dataset.listed, dataset.info.name)
    jobs = [prepare(box_store, dataset, spec, unit_size, redo_bad) for spec in specs]
    if not all(job.finished for job in jobs):
        pool, why = choose_pool(specs, local, isolate, address)
        _label(box_store, dataset, jobs, pool, why, takeover)
    rows = [run_row(box_store, job) for job in jobs]
    if as_json:
        print_json({"store": str(store), "teachers": rows})
    else:
        print_run(stdout(), box_store, rows)
    for job in jobs:
        if job.error:
            complain(job.error)
    code = max((job.exit_code for job in jobs), default=0)
    if code or any(row["state"] not in ("done", "done already") for row in rows):
        raise typer.Exit(code or 1)


def _plan(
    path: Path,
    dataset: Dataset,
    specs: Sequence[TeacherSpec],
    unit_size: int | None,
    redo_bad: bool,
    as_json: bool,
) -> None:
    store = None
    if (location(path) / "store.json").exists():
        store = BoxStore.open_or_create(path, dataset.categories, dataset.info)
        check_same(store, dataset.listed, dataset.info.name)
    rows, class_maps = [], []
    for given in specs:
        job = prepare(store, dataset, given, unit_size, redo_bad)
        spec, record, class_map = job.spec, job.record, job.class_map
        if record is None or class_map is None:
            # in a process of its own: a framework should not stay in this one
            with if_it_takes(f"loading {spec.name}, to learn its classes"):
                loaded = probe(LocalPool(isolate=True), spec)
            class_map = describe(spec, dataset, loaded)
            record = make_record(
                spec,
                dataset,
                job.unit_size,
                class_map=class_map,
                weights=loaded.weights_sha256,
                licence=loaded.licence,
                versions=loaded.versions,
                runtime=loaded.runtime,
            )
        rows.append(plan_row(job, class_map, record, store))
        class_maps.append(class_map)
    if as_json:
        info = dataset.info
        described = {"name": info.name, "images": info.n_images, "problems": dataset.problems}
        if dataset.notes:
            described["notes"] = list(dataset.notes)
        print_json({"store": str(path), "dataset": described, "teachers": rows})
        return
    where = f"{path}: {'there' if store else 'to be made'}"
    print_plan(stdout(), dataset, where, rows, class_maps)


def _label(
    store: BoxStore,
    dataset: Dataset,
    jobs: Sequence[Job],
    pool: WorkerPool,
    why: str,
    takeover: bool,
) -> None:
    # `kill` stops a run as orderly as Ctrl-C does; only now, as Ray installs a handler of its own
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with make_reporter(Console(stderr=True)) as reporter:
            for note in dataset.notes:
                reporter.note(note)
            reporter.note(f"workers: {pool.description}{why}")
            Service(store, dataset, pool, reporter).run(jobs, takeover=takeover)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
