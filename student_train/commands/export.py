"""The command `export`: a trained student as a file for other programs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from box_store.errors import UsageError
from student_train.commands.terminal import Json, Weights, open_console, print_json, print_plain

if TYPE_CHECKING:
    from rich.console import Console

    from student_train.export.card import Lineage
    from student_train.export.programs import Programs
    from student_train.runs.trained import TrainedStudent


def export(
    run: Annotated[
        Path,
        typer.Argument(help="Run folder, a .safetensors file of a run, or hub:ORG/NAME."),
    ],
    onnx: Annotated[Path | None, typer.Option("--onnx", help="Write ONNX to this file.")] = None,
    torch_export: Annotated[
        Path | None, typer.Option("--torch-export", help="Write torch.export's .pt2 to this file.")
    ] = None,
    official: Annotated[
        Path | None,
        typer.Option("--official", help="Write the official code's checkpoint to this file."),
    ] = None,
    transformers: Annotated[
        Path | None,
        typer.Option(
            "--transformers", help="Write a folder that transformers loads to this place."
        ),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(
            "--push",
            help="With --transformers: the folder and its model card as the repository ORG/NAME "
            "of the hub. Says what would be sent; --upload sends it.",
        ),
    ] = None,
    upload: Annotated[bool, typer.Option("--upload", help="With --push: really send it.")] = False,
    private: Annotated[
        bool, typer.Option("--private", help="With --upload: make a private repository.")
    ] = False,
    licence: Annotated[
        str | None,
        typer.Option(help="Licence of the weights, such as apache-2.0, for cards and metadata."),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            "--for",
            help="What it is going to run in, which sets what is not said otherwise: onnxruntime, "
            "openvino, tensorrt, web or coreml.",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Height x width in px to trace with; by default the evaluation size."),
    ] = None,
    dynamic: Annotated[
        str | None,
        typer.Option(help="What may vary later: size (and batch), batch, or none; else --for's."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference of a score or a relative box side.")
    ] = 1e-3,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="How deformable attention reads maps: gather (plain operations, for every "
            "runtime) or grid_sample (an operator of its own)."
        ),
    ] = None,
    fused_input: Annotated[
        bool,
        typer.Option(
            "--fused-input",
            help="The ONNX takes RGB bytes of any size, and resizes and scales them itself.",
        ),
    ] = False,
    half: Annotated[
        bool,
        typer.Option(
            "--half",
            help="Weights and heavy operations of the ONNX in float16, as far as AP allows.",
        ),
    ] = False,
    int8: Annotated[
        Path | None,
        typer.Option(
            "--int8",
            help="Weights and activations of the ONNX in 8 bits, as far as AP allows; ranges are "
            "those of this data set's photos.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Data set for AP: of --half (else the run's own), and of the check."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Its split; else the run's own.")] = None,
    limit: Annotated[int, typer.Option(help="Images that AP is measured on; 0: all.")] = 200,
    verify: Annotated[
        bool,
        typer.Option("--verify/--no-verify", help="Run the file in every runtime that is here."),
    ] = True,
    weights: Weights = "best",
    as_json: Json = False,
) -> None:
    """Write a student as ONNX or for torch.export, and check that the file detects the same
    wherever it runs; or write its weights as the official code of its family, or transformers,
    stores them.
    """
    from student_train.export.card import Lineage, model_card, record_of
    from student_train.export.official import export_checkpoint
    from student_train.export.programs import Programs
    from student_train.export.pushing import check_name, push_folder
    from student_train.export.transformers_folder import export_folder
    from student_train.runs.loading import load_trained

    if push is not None and transformers is None:
        raise UsageError("--push uploads the folder of --transformers DIR: give that too")
    if (upload or private) and push is None:
        raise UsageError("--upload and --private belong to --push ORG/NAME")
    name = check_name(push) if push is not None else (transformers or run).name
    if onnx is None and torch_export is None and official is None and transformers is None:
        raise UsageError(
            "nothing to write: give --onnx FILE, --torch-export FILE, --official FILE or "
            "--transformers DIR"
        )
    programs = Programs.asked(
        onnx=onnx,
        torch_export=torch_export,
        runtime=runtime,
        size=size,
        dynamic=dynamic,
        sampler=sampler,
        half=half,
        int8=int8,
        data=data,
        split=split,
        limit=limit,
        fused_input=fused_input,
        tolerance=tolerance,
        verify=verify,
    )
    console = open_console(to_stderr=as_json)
    print_plain(console, f"reading   {run}")
    student = load_trained(run, weights)
    record = record_of(run)
    rows: list[dict[str, Any]] = []
    if official is not None:
        n_tensors = export_checkpoint(student, official)
        rows.append({"path": str(official), "format": "official", "tensors": n_tensors})
        print_plain(console, f"wrote     {official} ({n_tensors} tensors under official names)")
    if transformers is not None:
        folder = export_folder(student, transformers, model_card(student, record, name, licence))
        rows.append(folder.to_json())
        print_plain(
            console, f"wrote     {transformers} ({folder.tensors} tensors, for transformers)"
        )
        if folder.note:
            print_plain(console, f"note      {folder.note}")
    if push is not None and transformers is not None:
        sent = push_folder(transformers, push, upload=upload, private=private)
        rows.append({"format": "hub", **vars(sent)})
        for file, n_bytes in sent.files.items():
            print_plain(console, f"file      {file}, {n_bytes:,} bytes")
        if sent.url is None:
            print_plain(console, f"dry run   nothing was sent; --upload sends this to {push}")
        else:
            print_plain(console, f"sent      {sent.url}")
    if programs is not None:
        origin = Lineage.of(student, record)
        rows += _write_programs(programs, student, origin, licence, console, as_json)
    if as_json:
        print_json(rows)


def _write_programs(
    programs: Programs,
    student: TrainedStudent,
    origin: Lineage,
    licence: str | None,
    console: Console,
    as_json: bool,
) -> list[dict[str, Any]]:
    """Write, check and print; a row a file."""
    from student_train.commands.verify import verify_table

    say = partial(print_plain, console)
    rows = []
    for made in programs.write(student, origin.notes(licence), say):
        each = made.exported
        print_plain(console, f"wrote     {each.path} ({each.format})")
        free = {"size": "batch and size", "batch": "batch", "none": "nothing"}[each.dynamic]
        print_plain(console, f"free      {free}" + (f": {each.note}" if each.note else ""))
        if each.difference is not None:
            shapes = ", ".join(each.checked)
            print_plain(
                console, f"checked   largest difference {each.difference:.1e} on images of {shapes}"
            )
        for line in made.remarks:
            print_plain(console, line)
        row = each.to_json()
        if made.verified is not None:
            row["verified"] = [one.to_json() for one in made.verified.rows]
            if not as_json:
                console.print(verify_table(made.verified.rows, made.verified.tolerance))
            for line in made.verified.remarks:
                print_plain(console, line)
            made.verified.require()
        rows.append(row)
    return rows
