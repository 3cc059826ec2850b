"""The command `bench`: measurements of a training step."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from box_store.errors import UsageError
from student_train.commands.terminal import Json, Overrides, open_console, print_json, print_plain

if TYPE_CHECKING:
    from rich.table import Table

    from box_store.patience import Say
    from student_train.settings.overrides import Layer


def bench(
    overrides: Overrides = None,
    preset: Annotated[
        str | None,
        typer.Option(help="What to measure; dino-r50-4scale on a GPU, dino-mobilenetv2 on a CPU."),
    ] = None,
    presets: Annotated[
        str | None,
        typer.Option(
            help="Measure these, or `all`, at real size: the fastest attention here (Triton, "
            "numba) against plain torch, and peak memory."
        ),
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Show each part's share.")] = False,
    data: Annotated[
        bool, typer.Option("--data", help="Measure the loader beside the step (data.train_images).")
    ] = False,
    exported: Annotated[
        bool,
        typer.Option(
            "--export",
            help="Measure the preset's student, or --run's, where it is deployed: eager, as files "
            "in onnxruntime and OpenVINO, and the same model of transformers.",
        ),
    ] = False,
    run: Annotated[
        Path | None, typer.Option(help="With --export: a trained student in the preset's place.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Height x width in px; by default the preset's evaluation size."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 2,
    steps: Annotated[
        int | None, typer.Option(help="Measured steps of each kind; 20 on a GPU, 5 on a CPU.")
    ] = None,
    teachers: Annotated[str, typer.Option(help="Numbers of teachers to compare.")] = "0,1,3",
    boxes: Annotated[int, typer.Option(help="Boxes a teacher and image.")] = 50,
    out: Annotated[
        Path | None, typer.Option(help="Write the rows as JSON to this file too.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure training steps on synthetic images: what teachers cost (in turns with none), each
    part's share, all presets, or the loader; with --export, inference of exported files.
    """
    from student_train.bench import (
        BenchSpec,
        bench_loader,
        bench_presets,
        bench_shares,
        bench_teachers,
        default_preset,
        default_steps,
    )
    from student_train.bench.presets import presets_table
    from student_train.bench.teachers import parse_teachers
    from student_train.config import TrainConfig, resolve
    from student_train.presets import all_presets, load_preset
    from student_train.settings.origin import ARGUMENT
    from student_train.settings.overrides import Layer, parse_assignments

    if sum((presets is not None, profile, data, exported)) > 1:
        raise UsageError(
            "--presets, --profile, --data and --export are four measurements: choose one"
        )
    if run is not None and not exported:
        raise UsageError("--run belongs to --export")
    if run is not None and preset is not None:
        raise UsageError("--run and --preset are two students: choose one")
    counts = parse_teachers(teachers)
    layer = Layer(ARGUMENT, parse_assignments(overrides or []))

    def configured(name: str) -> tuple[TrainConfig, BenchSpec]:
        config = resolve(load_preset(name), arguments=[layer]).config
        whole = "{}x{}".format(*config.augment.eval_size)
        return config, BenchSpec.parse(size or whole, batch, steps or default_steps(), boxes)

    console = open_console(to_stderr=as_json)
    content: Any
    if presets is not None:
        names = list(all_presets()) if presets == "all" else presets.split(",")
        configs, specs = zip(*(configured(name.strip()) for name in names), strict=True)
        found = []
        for row, about in bench_presets(configs, specs, partial(print_plain, console)):
            found.append((row, about))
            # a machine that goes away keeps what was measured
            _write(out, [each.to_json(where) for each, where in found])
        content = [row.to_json(about) for row, about in found]
        shown = presets_table([row for row, _ in found], found[0][1].get("device", ""))
    elif exported:
        content, shown = _exported(run, preset, size, steps, layer, partial(print_plain, console))
        _write(out, content)
    else:
        config, spec = configured(preset or default_preset())
        if profile:
            result = bench_shares(config, spec, max(counts))
        elif data:
            result = bench_loader(config, spec, config.data.train_images)
        else:
            result = bench_teachers(config, spec, counts, partial(print_plain, console))
        content, shown = result.to_json(), result.table()
        _write(out, content)
    if as_json:
        print_json(content)
    else:
        console.print(shown)


def _exported(
    run: Path | None,
    preset: str | None,
    size: str | None,
    steps: int | None,
    layer: Layer,
    say: Say,
) -> tuple[Any, Table]:
    """Rows as JSON and as a table."""
    from student_train.bench import provenance
    from student_train.bench.exported import bench_exported, export_table
    from student_train.bench.students import random_student
    from student_train.config import resolve
    from student_train.machine.runtime import Runtime
    from student_train.presets import load_preset
    from student_train.runs.loading import load_trained
    from student_train.settings.sizes import parse_size

    if steps is not None and steps < 1:
        raise UsageError(f"--steps is at least 1, got {steps}")
    if run is not None:
        student = load_trained(run)
    else:
        name = preset or "dino-r50-4scale"
        student = random_student(resolve(load_preset(name), arguments=[layer]).config)
    height, width = student.config.augment.eval_size if size is None else parse_size(size, 32)
    rows = bench_exported(student, (height, width), steps or 11, say)
    about = provenance(Runtime.start("cpu"))
    commit = about["source"].get("commit") or "unknown"
    about |= {"height": height, "width": width}
    title = f"{student.origin}, {height} x {width} px, one core, commit {commit[:9]}"
    return [row.to_json(about) for row in rows], export_table(rows, title)


def _write(out: Path | None, content: Any) -> None:
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
