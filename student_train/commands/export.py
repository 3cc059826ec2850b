"""The command `export`: a trained student as a file for other programs."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from box_store.errors import UsageError
from box_store.places.files import check_writable
from student_train.commands.terminal import Json, Weights, open_console, print_json, print_plain


def export(
    run: Annotated[Path, typer.Argument(help="Run folder, or a .safetensors file of a run.")],
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
        typer.Option(help="Licence of the weights for the model card, such as apache-2.0."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Height x width in px to trace with; by default the evaluation size."),
    ] = None,
    dynamic: Annotated[
        str, typer.Option(help="What may vary later: size (and batch), batch, or none.")
    ] = "size",
    tolerance: Annotated[
        float, typer.Option(help="Largest difference of a score or a relative box side.")
    ] = 1e-3,
    sampler: Annotated[
        str,
        typer.Option(
            help="How deformable attention reads maps: gather (plain operations, for every "
            "runtime) or grid_sample (an operator of its own)."
        ),
    ] = "gather",
    half: Annotated[
        bool, typer.Option("--half", help="Weights and heavy operations of the ONNX in float16.")
    ] = False,
    int8: Annotated[
        Path | None,
        typer.Option(
            "--int8",
            help="Weights and activations of the ONNX in 8 bits, ranges from this data "
            "set's photos; refused where more than a point of AP is lost on its split.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of --int8's data set.")] = "val2017",
    weights: Weights = "best",
    as_json: Json = False,
) -> None:
    """Write a student as ONNX or for torch.export, and check that the file detects the same; or
    write its weights as the official code of its family, or transformers, stores them.
    """
    from student_train.export import export_student
    from student_train.export.attention import SAMPLERS
    from student_train.export.card import model_card, record_of
    from student_train.export.official import export_checkpoint
    from student_train.export.precision import lessened
    from student_train.export.program import DYNAMIC
    from student_train.export.pushing import check_name, push_folder
    from student_train.export.transformers_folder import export_folder
    from student_train.runs.trained import load_student

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
    if dynamic not in DYNAMIC:
        raise UsageError(f"--dynamic is one of {', '.join(DYNAMIC)}, got {dynamic!r}")
    if sampler not in SAMPLERS:
        raise UsageError(f"--sampler is one of {', '.join(SAMPLERS)}, got {sampler!r}")
    if half and int8 is not None:
        raise UsageError("--half and --int8 are two precisions: choose one")
    if (half or int8 is not None) and onnx is None:
        raise UsageError("--half and --int8 are of ONNX files: give --onnx FILE too")
    for target in (onnx, torch_export):
        if target is not None:
            check_writable(target.parent, "choose another place")
    console = open_console(to_stderr=as_json)
    print_plain(console, f"reading   {run}")
    student = load_student(run, weights)
    rows: list[dict[str, object]] = []
    if official is not None:
        n_tensors = export_checkpoint(student, official)
        rows.append({"path": str(official), "format": "official", "tensors": n_tensors})
        print_plain(console, f"wrote     {official} ({n_tensors} tensors under official names)")
    if transformers is not None:
        card = model_card(student, record_of(run), name, licence)
        folder = export_folder(student, transformers, card)
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
    done = []
    if onnx is not None or torch_export is not None:
        multiple = student.config.model.side_multiple
        height, width = (
            -(-side // multiple) * multiple for side in student.config.augment.eval_size
        )
        done = export_student(
            student,
            (height, width) if size is None else _parse_size(size),
            onnx=onnx,
            torch_export=torch_export,
            dynamic=next(kind for kind in DYNAMIC if kind == dynamic),
            sampler=next(kind for kind in SAMPLERS if kind == sampler),
            tolerance=tolerance,
            say=partial(print_plain, console),
        )
        if onnx is not None and (half or int8 is not None):
            done.append(
                lessened(student, onnx, done[-1], int8, split, partial(print_plain, console))
            )
    if as_json:
        print_json([*rows, *(each.to_json() for each in done)])
        return
    for each in done:
        print_plain(console, f"wrote     {each.path} ({each.format})")
        free = {"size": "batch and size", "batch": "batch", "none": "nothing"}[each.dynamic]
        print_plain(console, f"free      {free}" + (f": {each.note}" if each.note else ""))
        print_plain(
            console,
            f"checked   largest difference {each.difference:.1e} on images of "
            + ", ".join(each.checked),
        )


def _parse_size(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdigit() and int(side) >= 32 for side in sides):
        raise UsageError(f"--size is HEIGHTxWIDTH of at least 32x32, got {text!r}")
    return int(sides[0]), int(sides[1])
