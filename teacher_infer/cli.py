"""`teacher-infer`: what each command takes; `service` does the work, `report` has the words."""

import importlib.util
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console

from box_store.coco_io import export_results, import_results, load_coco
from box_store.errors import TeachDetrError, UsageError
from box_store.locations import location
from box_store.records import DatasetInfo
from box_store.store import BoxStore
from teacher_infer.adapter import adapter_info, weights_files
from teacher_infer.bench import bench
from teacher_infer.dataset import Dataset, load_dataset
from teacher_infer.job import Job
from teacher_infer.local_pool import LocalPool
from teacher_infer.plan import make_record
from teacher_infer.pool import WorkerPool
from teacher_infer.prepare import describe, prepare, probe
from teacher_infer.progress import PlainReporter, make_reporter
from teacher_infer.report import (
    list_rows,
    plan_row,
    print_list,
    print_plan,
    print_run,
    print_status,
    run_row,
    teacher_status,
)
from teacher_infer.service import Service
from teacher_infer.spec import TeacherSpec, check_names, load_teachers, parse_teacher

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="""Run detectors you already have over a data set, and keep their boxes in a store.

    teacher-infer list                   which detectors can be teachers, and how they are named
    teacher-infer plan ...               what a run would do, without doing it
    teacher-infer run ...                do it; run it again to go on where it stopped
    teacher-infer status STORE           how far each teacher is
    teacher-infer import / export        COCO results JSON in and out
    teacher-infer bench ...              what the service costs beside the model
    """,
)

Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder in COCO's layout: DIR/SPLIT/*.jpg, DIR/annotations/instances_SPLIT.json"
    ),
]
Splits = Annotated[
    list[str] | None, typer.Option("--split", help="Split of --data; repeat it to label several")
]
Images = Annotated[Path | None, typer.Option(help="Folder of images, with --annotations")]
Annotations = Annotated[
    Path | None, typer.Option(help="COCO annotation file that lists the images of --images")
]
Store = Annotated[Path, typer.Option(help="The box store: a folder, made if there is none")]
Teachers = Annotated[
    list[str] | None,
    typer.Option(
        "--teacher",
        metavar="NAME=ADAPTER:MODEL[,key=value...]",
        help="A teacher; repeat it for more. `teacher-infer list` explains adapters and keys",
    ),
]
TeachersFile = Annotated[
    Path | None, typer.Option(help="TOML file with a table [teachers.NAME] for each teacher")
]
UnitSize = Annotated[
    int | None,
    typer.Option(min=1, help="Images committed together, for new teachers (32 to 512 by default)"),
]
RedoBad = Annotated[
    bool, typer.Option("--redo-bad", help="Label units that hold failed images once more")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout")]


@app.command()
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
    specs = _specs(teacher, teachers)
    dataset = load_dataset(data, split or [], images, annotations)
    _plan(store, dataset, specs, unit_size, redo_bad, as_json)


@app.command()
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
    specs = _specs(teacher, teachers)
    dataset = load_dataset(data, split or [], images, annotations)
    if dry_run:
        _plan(store, dataset, specs, unit_size, redo_bad, as_json)
        return
    box_store = BoxStore.open_or_create(store, dataset.categories, dataset.info)
    jobs = [prepare(box_store, dataset, spec, unit_size, redo_bad) for spec in specs]
    if not all(job.finished for job in jobs):
        _label(box_store, dataset, jobs, _pool(specs, local, isolate, address))
    rows = [run_row(box_store, job) for job in jobs]
    if as_json:
        _print_json({"store": str(store), "teachers": rows})
    else:
        print_run(_out(), box_store, rows)
    for job in jobs:
        if job.error:
            _complain(job.error)
    code = max((job.exit_code for job in jobs), default=0)
    if code or any(row["state"] not in ("done", "done already") for row in rows):
        raise typer.Exit(code or 1)


@app.command(name="bench")
def bench_(
    data: Data = None,
    split: Splits = None,
    images: Images = None,
    annotations: Annotations = None,
    teacher: Teachers = None,
    teachers: TeachersFile = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each side runs")] = 3,
    local: Annotated[bool, typer.Option("--local", help="One process without Ray")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the service with a bare loop that decodes and predicts: images a second, ratio.

    Both label the whole data set in turn, with as many threads; nothing is kept.

    Example: teacher-infer bench --data coco --split val2017
    --teacher yolox=onnx:yolox_nano.onnx,format=yolox
    """
    specs = _specs(teacher, teachers)
    if len(specs) != 1 or specs[0].workers != 1:
        raise UsageError("bench compares one teacher with one worker with a loop: give just that")
    dataset = load_dataset(data, split or [], images, annotations)
    with PlainReporter(Console(stderr=True)) as reporter:
        result = bench(
            dataset, specs[0], lambda: _pool(specs, local, local, None)[0], reporter, rounds
        )
    if as_json:
        _print_json(result.as_dict())
    else:
        _say(result.text())


@app.command(name="list")
def list_(
    adapter: Annotated[str | None, typer.Argument(help="Only this one")] = None,
    as_json: AsJson = False,
) -> None:
    """The adapters: what each can run, what it needs, its licence, an example, and all keys."""
    rows = list_rows(adapter_info(adapter).name if adapter else None)
    if as_json:
        _print_json(rows)
    else:
        print_list(_out(), rows)


@app.command()
def status(
    store: Annotated[Path, typer.Argument(help="The box store")], as_json: AsJson = False
) -> None:
    """How far each teacher of a store is, how many boxes it has, and which images failed."""
    box_store = BoxStore.open(store)
    rows = [teacher_status(box_store, record) for record in box_store.teachers.values()]
    if as_json:
        _print_json({"store": str(store), "dataset": box_store.dataset.name, "teachers": rows})
    else:
        print_status(_out(), box_store, rows)


@app.command(name="import")
def import_(
    store: Store,
    name: Annotated[str, typer.Option(help="Name of the teacher that made the results")],
    results: Annotated[list[Path], typer.Option(help="COCO results file; repeat it for more")],
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="COCO annotation file that the results belong to; needed by a store that has no "
            "teacher yet"
        ),
    ] = None,
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Further results files")
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the detector's weights")] = "unknown",
    score_floor: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out detections below this score")
    ] = 0.0,
    only_listed: Annotated[
        bool,
        typer.Option(
            "--only-listed", help="Images without any detection count as not seen, not as empty"
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take another program's detections into the store as a teacher, from COCO results JSON.

    Files of any size: they are read as a stream. All ids are checked before anything is stored.

    Example: teacher-infer import --store boxes --name lab --results lab.json
    --annotations coco/annotations/instances_train2017.json
    """
    listed = None
    if annotations is not None:
        coco = load_coco(annotations, labelled=False)
        listed = coco.images
        info = DatasetInfo(annotations.stem, coco.sha256, len(coco.images))
        box_store = BoxStore.open_or_create(store, coco.categories, info)
    else:
        box_store = BoxStore.open(store)
    report = import_results(
        box_store,
        name,
        [*results, *(more or [])],
        listed,
        licence=licence,
        score_floor=score_floor,
        only_listed=only_listed,
    )
    row = {
        "teacher": name,
        "boxes": report.n_boxes,
        "units_written": report.units_written,
        "units_present": report.units_present,
        "dropped": dict(report.dropped),
    }
    if as_json:
        _print_json(row)
        return
    dropped = "".join(f", {count} left out ({why})" for why, count in report.dropped.items())
    if report.units_written:
        _say(f"{name}: {report.n_boxes} boxes of {report.record.n_images} images{dropped}")
    else:
        _say(f"{name}: these results are in the store already")


@app.command()
def export(
    store: Store,
    out: Annotated[Path, typer.Option(help="COCO results file to write")],
    teacher: Annotated[str | None, typer.Option(help="Whose boxes")] = None,
    fused: Annotated[bool, typer.Option("--fused", help="All teachers' boxes, merged")] = False,
    score_floor: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out boxes below this score")
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Write a teacher's boxes, or all teachers' boxes fused, as COCO results JSON.

    Example: teacher-infer export --store boxes --fused --out fused.json
    """
    if fused == (teacher is not None):
        raise UsageError("whose boxes? Give --teacher NAME, or --fused for all of them merged")
    n_boxes = export_results(BoxStore.open(store), teacher, out, score_floor=score_floor)
    if as_json:
        _print_json({"teacher": teacher or "fused", "boxes": n_boxes, "out": str(out)})
    else:
        _say(f"{out}: {n_boxes} boxes")


def _specs(texts: Sequence[str] | None, file: Path | None) -> list[TeacherSpec]:
    specs = [parse_teacher(text) for text in texts or []]
    specs += load_teachers(file) if file is not None else []
    for spec in check_names(specs):
        # unknown keys and missing files, before anything is made or started
        weights_files(spec.adapter_spec("cpu", 1))
    return specs


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
    rows, class_maps = [], []
    for spec in specs:
        job = prepare(store, dataset, spec, unit_size, redo_bad)
        record, class_map = job.record, job.class_map
        if record is None or class_map is None:
            # in a process of its own: a framework should not stay in this one
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
            )
        rows.append(plan_row(job, class_map, record, store))
        class_maps.append(class_map)
    if as_json:
        info = dataset.info
        described = {"name": info.name, "images": info.n_images, "problems": dataset.problems}
        _print_json({"store": str(path), "dataset": described, "teachers": rows})
        return
    where = f"{path}: {'there' if store else 'to be made'}"
    print_plan(_out(), dataset, where, rows, class_maps)


def _label(
    store: BoxStore,
    dataset: Dataset,
    jobs: Sequence[Job],
    pool_and_why: tuple[WorkerPool, str],
) -> None:
    pool, why = pool_and_why
    # `kill` stops a run as orderly as Ctrl-C does; only now, as Ray installs a handler of its own
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with make_reporter(Console(stderr=True)) as reporter:
            reporter.note(f"workers: {pool.description}{why}")
            Service(store, dataset, pool, reporter).run(jobs)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _pool(
    specs: Sequence[TeacherSpec], local: bool, isolate: bool, address: str | None
) -> tuple[WorkerPool, str]:
    """Where the workers run, and a word on why it isn't Ray."""
    if local:
        return LocalPool(isolate), ""
    if importlib.util.find_spec("ray") is None:
        install = "pip install 'teach-detr[ray]'"
        if address:
            raise UsageError(f"--address needs Ray, which is not installed: {install}")
        return LocalPool(), f"; {install} for several at once"
    from teacher_infer.ray_cluster import RayUnavailable
    from teacher_infer.ray_pool import RayPool

    try:
        return RayPool(specs, address), ""
    except RayUnavailable as error:
        if address:
            raise
        return LocalPool(), f"; {error}"


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _out() -> Console:
    # a table in a pipe or a log must not be cut to 80 columns
    return Console() if sys.stdout.isatty() else Console(width=160)


def _say(text: str) -> None:
    _out().print(text, markup=False, highlight=False, soft_wrap=True)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _complain(text: str) -> None:
    console = Console(stderr=True)
    console.print("[red]error:[/red] ", end="")
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script; always leaves through SystemExit."""
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="teacher-infer")
    except TeachDetrError as error:
        _complain(str(error))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
