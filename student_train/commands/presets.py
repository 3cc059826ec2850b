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
    as_json: Json = False,
) -> None:
    """List what can be trained, or all settings of one preset."""
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
