"""The command `bench`: measurements of a training step."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from box_store.errors import UsageError
from student_train.commands.terminal import Json, Overrides, open_console, print_json, print_plain


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
    part's share, all presets, or the loader.
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

    if sum((presets is not None, profile, data)) > 1:
        raise UsageError("--presets, --profile and --data are three measurements: choose one")
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


def _write(out: Path | None, content: Any) -> None:
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
