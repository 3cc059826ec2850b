"""What several commands of `teacher-infer` take: the data set, the store, the teachers."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from teacher_infer.run.deadline import in_time
from teacher_infer.teachers.loaded import weights_files
from teacher_infer.teachers.parsing import load_teachers, parse_teacher
from teacher_infer.teachers.spec import TeacherSpec, check_names

Data = Annotated[
    Path | None,
    typer.Option(
        help="Data set as it lies: COCO, YOLO, Pascal VOC, CSV, photos, ...; `teach-detr data DIR`"
    ),
]
Splits = Annotated[
    list[str] | None,
    typer.Option(
        "--split",
        help="Split of --data; repeat it to label several. Or what --annotations is a split of",
    ),
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
Takeover = Annotated[
    bool,
    typer.Option(
        "--takeover",
        help="Take a store at a URL from another driver that is known to be dead or to hang",
    ),
]
RedoBad = Annotated[
    bool, typer.Option("--redo-bad", help="Label units that hold failed images once more")
]


def read_specs(texts: Sequence[str] | None, file: Path | None) -> list[TeacherSpec]:
    """The teachers asked for, checked before anything is made or started.

    Raises:
        TeachDetrError: a key, a name or a file that is wrong.
    """
    specs = [parse_teacher(text) for text in texts or []]
    specs += load_teachers(file) if file is not None else []
    for spec in check_names(specs):
        # unknown keys and missing files
        asked = spec.adapter_spec("cpu", 1)
        in_time(spec, "looking for its files", partial(weights_files, asked))
    return specs
