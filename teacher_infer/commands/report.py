"""What the commands print: tables for people, plain dictionaries for `--json`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from box_store.patience import duration
from box_store.store.reader import read_images
from box_store.store.records import TeacherRecord
from box_store.store.store import BoxStore
from teacher_infer.commands.terminal import say
from teacher_infer.data.dataset import Dataset
from teacher_infer.run.job import Job
from teacher_infer.run.plan import RUNTIME, runtime_of
from teacher_infer.teachers.class_map import ClassMap

_HASH_CHARS = 12


def teacher_status(store: BoxStore, record: TeacherRecord) -> dict[str, Any]:
    """How far a teacher is, and what came out: from the store alone."""
    images = read_images(store, record.name, ["n_boxes", "status", "seconds"]).to_pydict()
    n_images = len(images["status"])
    seconds = sum(images["seconds"])
    return {
        "teacher": record.name,
        "adapter": record.adapter,
        "model": record.model,
        "licence": record.licence,
        "fingerprint": record.fingerprint,
        "units": record.n_units,
        "units_done": len(store.units_done(record.name)),
        "images": record.n_images,
        "images_done": n_images,
        "boxes": sum(images["n_boxes"]),
        "statuses": dict(Counter(images["status"])),
        "seconds_per_image": seconds / n_images if seconds else None,
    }


def print_status(console: Console, store: BoxStore, rows: Sequence[Mapping[str, Any]]) -> None:
    """The teachers of a store, one a line."""
    dataset = store.dataset
    console.print(
        f"{store.path}: data set {dataset.name}, {len(store.categories)} categories",
        markup=False,
        highlight=False,
    )
    table = _table("teacher", "model", "licence", "units", "images", "boxes", "bad images")
    for row in rows:
        table.add_row(
            row["teacher"],
            f"{row['adapter']}:{row['model']}",
            row["licence"],
            f"{row['units_done']}/{row['units']}",
            f"{row['images_done']}/{row['images']}",
            str(row["boxes"]),
            bad_images(row["statuses"]),
        )
    console.print(table if rows else "no teacher yet")


def bad_images(statuses: Mapping[str, int]) -> str:
    """`3 truncated, 1 missing_file`, or a dash."""
    bad = {status: count for status, count in statuses.items() if status != "ok" and count}
    return ", ".join(f"{count} {status}" for status, count in sorted(bad.items())) or "-"


def plan_row(
    job: Job, class_map: ClassMap, record: TeacherRecord, store: BoxStore | None
) -> dict[str, Any]:
    """What a run would do for one teacher."""
    n_left = sum(len(attempt.unit.tasks) for attempt in job.todo)
    pace = None
    if store is not None and job.record is not None:
        pace = teacher_status(store, job.record)["seconds_per_image"]
    return {
        "teacher": job.name,
        "adapter": record.adapter,
        "model": record.model,
        "licence": record.licence,
        "weights_sha256": record.weights_sha256,
        "options": {key: record.options[key] for key in record.options if key != RUNTIME},
        "runtime": dict(runtime_of(record)),
        "fingerprint": record.fingerprint,
        "versions": dict(record.versions),
        "unit_size": record.unit_size,
        "units": record.n_units,
        "units_done": record.n_units - len(job.todo),
        "images": record.n_images,
        "images_done": record.n_images - n_left,
        "workers": job.spec.workers,
        "seconds_per_image": pace,
        "estimate_s": n_left * pace / job.spec.workers if pace is not None else None,
        "class_map": class_map.mapping,
        "unmapped": list(class_map.unmapped),
        "unseen": list(class_map.unseen),
    }


def print_plan(
    console: Console,
    dataset: Dataset,
    where: str,
    rows: Sequence[Mapping[str, Any]],
    class_maps: Sequence[ClassMap],
) -> None:
    """The plan, in sentences."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say(f"data set {dataset.info.name}: {len(dataset.tasks)} images, {_categories(dataset)}")
    for note in dataset.notes:
        say(f"  note         {note}")
    for kind, count in dataset.problems.items():
        say(f"  note: {count} annotations are not as they should be ({kind})")
    say(f"store {where}")
    for row, class_map in zip(rows, class_maps, strict=True):
        say(f"teacher {row['teacher']}: {row['adapter']}:{row['model']}, licence {row['licence']}")
        weights = row["weights_sha256"]
        say(
            f"  weights      {weights[:_HASH_CHARS] or 'none to hash (random, or fetched by name)'}"
        )
        say(f"  fingerprint  {row['fingerprint'][:_HASH_CHARS]}")
        say("  options      " + ", ".join(f"{key}={row['options'][key]}" for key in row["options"]))
        say(f"  NMS          {_nms(row['runtime'])}")
        told = [f"{key} {value}" for key, value in row["runtime"].items() if key != "nms"]
        if told:
            say("  runtime      " + ", ".join(told))
        say(f"  classes      {class_map.summary()}")
        say(
            f"  units        {row['units_done']} of {row['units']} done, of {row['unit_size']} "
            f"images each; {row['images'] - row['images_done']} images to label"
        )
        if row["images_done"] == row["images"]:
            say("  nothing to do")
        elif row["estimate_s"] is not None:
            say(
                f"  estimate     {duration(row['estimate_s'])} with {row['workers']} "
                f"worker(s), from {row['seconds_per_image']:.3g} s an image so far"
            )
        else:
            say("  estimate     none before its first unit is done")


def _nms(runtime: Mapping[str, str]) -> str:
    """Which NMS a teacher's boxes go through, in words."""
    said = runtime.get("nms")
    if said is None:
        return "the model's own (the record is older than this line)"
    if said == "none":
        return "none"
    iou, _, by = said.partition(" by ")
    return (
        f"the model's own, at an IoU of {iou} ({by})" if by else f"class-wise, at an IoU of {iou}"
    )


def _categories(dataset: Dataset) -> str:
    names = dataset.categories.names
    shown = ", ".join(names[:5])
    return f"{len(names)} categories ({shown}{', ...' if len(names) > 5 else ''})"


def run_row(store: BoxStore, job: Job) -> dict[str, Any]:
    """What a run did for one teacher, and where it stands now."""
    done = len(store.units_done(job.name)) if job.record is not None else 0
    n_units = -(-job.n_images // job.unit_size)
    if job.error:
        state = "failed"
    elif done < n_units:
        state = "incomplete"
    else:
        state = "done" if job.n_committed else "done already"
    return {
        "teacher": job.name,
        "state": state,
        "error": job.error,
        "units": n_units,
        "units_done": done,
        "units_failed": {str(unit): text for unit, text in job.failed_units.items()},
        "images_labelled": job.n_labelled,
        "boxes": job.n_boxes,
        "statuses": dict(job.statuses),
        "images_per_s": job.images_per_s,
        "batch_size": job.batch_size,
        "batch_size_asked": job.spec.batch_size,
        "workers_lost": {str(cause): n for cause, n in job.lost.items()},
        "boxes_unmapped": dict(job.unmapped),
        "unmapped": list(job.class_map.unmapped) if job.class_map else [],
    }


def print_run(console: Console, store: BoxStore, rows: Sequence[Mapping[str, Any]]) -> None:
    """What a run did, one line a teacher, and what needs a word."""
    table = _table(
        "teacher", "state", "units", "images", "boxes", "images/s", "bad images", title="This run"
    )
    for row in rows:
        rate = row["images_per_s"]
        table.add_row(
            row["teacher"],
            row["state"],
            f"{row['units_done']}/{row['units']}",
            str(row["images_labelled"]),
            str(row["boxes"]),
            f"{rate:.1f}" if rate is not None else "-",
            bad_images(row["statuses"]),
        )
    console.print(table)
    if all(row["state"] == "done already" for row in rows):
        say("nothing to do: all of this is in the store already", console)
    for row in rows:
        if dropped := row["boxes_unmapped"]:
            text = ", ".join(f"{count} {name}" for name, count in dropped.items())
            say(f"{row['teacher']}: left out, of classes without a category: {text}", console)
        if row["batch_size"] < row["batch_size_asked"]:
            asked = row["batch_size_asked"]
            text = f"batches of {row['batch_size']}: {asked} were more than memory holds"
            say(f"{row['teacher']}: {text}; ask for batch_size={row['batch_size']}", console)
        for unit, reason in row["units_failed"].items():
            say(f"{row['teacher']}: unit {unit} was given up: {reason}", console)
    if any(row["statuses"].keys() - {"ok"} for row in rows):
        say(
            "bad images are in the store with their errors: "
            f"teach-detr sql {store.path} \"SELECT * FROM runs WHERE status <> 'ok'\"; "
            "--redo-bad tries them again",
            console,
        )


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        numeric = column in ("units", "images", "boxes", "images/s")
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    return table
