"""Options that mean the same in several commands of `teach-detr`."""

from pathlib import Path
from typing import Annotated

import typer

Store = Annotated[Path, typer.Argument(help="The box store: a folder")]
Annotations = Annotated[
    Path | None, typer.Option(help="COCO annotations to compare with, or to attach as `truth`")
]
Teacher = Annotated[
    list[str] | None, typer.Option(help="Only this one; repeat it for more (default: all)")
]
Licences = Annotated[
    list[str] | None,
    typer.Option(help="Only teachers of this licence, such as 'Apache*'; repeat it for more"),
]
DeniedLicences = Annotated[
    list[str] | None, typer.Option(help="Leave out teachers of this licence, such as 'AGPL*'")
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--param", metavar="NAME=VALUE", help="Value of $NAME in the query"),
]
TopK = Annotated[int, typer.Option(min=1, help="Best boxes kept an image and teacher")]
Calibrated = Annotated[
    bool, typer.Option("--calibrated", help="Scores as `calibrate` made them; floors of these")
]
MaxImages = Annotated[
    int, typer.Option(min=1, help="Look at no more annotated images, drawn with the seed")
]
FileOverrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values over the file's")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would run, and how long; write nothing")
]
