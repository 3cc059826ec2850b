"""The command `presets`: what can be trained, and every setting of it."""

from typing import Annotated

import typer

from box_store.patience import if_it_takes
from student_train.commands.terminal import Json, open_console, print_json

PUBLISHED = (
    "AP and + Aux (with teachers): COCO val2017 in percent, as the methods' authors published them "
    "for full runs. This project has not measured them. Sources:"
)


def presets(
    name: Annotated[str | None, typer.Argument(help="Show every setting of this preset.")] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table as docs/students.md has it.")
    ] = False,
    weights: Annotated[
        bool,
        typer.Option("--weights", help="List trained weights that others offer, with licences."),
    ] = False,
    as_json: Json = False,
) -> None:
    """List what can be trained, or all settings of one preset."""
    if weights:
        _weights(name, as_json)
        return
    from student_train.commands.tables import presets_table
    from student_train.presets.listing import preset_rows, preset_settings
    from student_train.presets.markdown import presets_markdown

    console = open_console()
    if markdown:
        print(presets_markdown())
        return
    if name is None:
        with if_it_takes("counting the parameters of every preset"):
            rows = preset_rows()
        if as_json:
            print_json([row.to_json() for row in rows])
            return
        console.print(presets_table([(row.preset, row.config, row.n_parameters) for row in rows]))
        for row in rows:
            console.print(f"{row.preset.name}: {row.preset.use}", highlight=False)
        console.print(PUBLISHED, highlight=False)
        for row in rows:
            if row.preset.published:
                console.print(
                    f"  {row.preset.name}: {row.preset.published.source}", highlight=False
                )
        return
    found = preset_settings(name)
    if as_json:
        print_json(found)
        return
    for key, row in found["settings"].items():
        origin = f"  ({row['origin']})" if row["origin"] != "default" else ""
        console.print(f"{key} = {row['text']}{origin}", markup=False, soft_wrap=True)
        if row["help"]:
            console.print(f"    {row['help']}", markup=False, highlight=False, style="dim")


def _weights(preset: str | None, as_json: bool) -> None:
    """Those of one preset, or all."""
    from student_train.commands.tables import weights_table
    from student_train.presets.weights import NOT_FETCHED, known_weights

    rows = known_weights(preset)
    if as_json:
        print_json([row.to_json() for row in rows])
        return
    console = open_console()
    console.print(weights_table(rows))
    for note in dict.fromkeys(row.notes for row in rows if row.notes):
        names = ", ".join(row.preset for row in rows if row.notes == note)
        console.print(f"{names}: {note}", highlight=False)
    console.print(
        "student-train import hub:ORG/NAME --out RUN reads them, and student-train train --init "
        f"RUN starts from there. {NOT_FETCHED}",
        highlight=False,
    )
