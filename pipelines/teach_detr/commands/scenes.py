"""The command `scenes`: data sets that cost nothing and are known exactly."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from box_store.errors import UsageError, nearest
from teach_detr.scenes.settings import TEACHER_SIZES, SceneSet
from teach_detr.terminal import AsJson, open_console, print_json

_DEFAULT = SceneSet()


def scenes(
    out: Annotated[Path, typer.Argument(help="Folder to make, or to go on with")],
    world: Annotated[
        str,
        typer.Option(
            help="toys: 8 classes; crowd: 12, look-alikes, small toys, clutter; wide: 4000 px"
        ),
    ] = _DEFAULT.world,
    style: Annotated[str, typer.Option(help="day, dusk or reef: light and colours")] = (
        _DEFAULT.style
    ),
    images: Annotated[int, typer.Option(min=1, help="Of train2017")] = _DEFAULT.images,
    val_images: Annotated[int, typer.Option(min=1, help="Of val2017")] = _DEFAULT.val_images,
    seed: Annotated[int, typer.Option(help="Decides every pixel")] = _DEFAULT.seed,
    thin: Annotated[
        float, typer.Option(min=0, help="Share of the training objects left unlabelled")
    ] = _DEFAULT.thin,
    teachers: Annotated[
        bool, typer.Option("--teachers", help="Train an RTMDet and a YOLO on other scenes, too")
    ] = False,
    size: Annotated[
        str, typer.Option(help="How long teachers learn: tiny, cpu (20 minutes on two cores), gpu")
    ] = "cpu",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of RTMDet, in place of what --size says")
    ] = None,
    yolo_epochs: Annotated[
        int | None, typer.Option(min=1, help="Of YOLO, in place of what --size says")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew in that folder")] = False,
    as_json: AsJson = False,
) -> None:
    """Draw a data set in COCO's layout: toys on textured grounds, every box exact.

    OUT then holds train2017, val2017 and annotations; with --teachers also teachers.toml and the
    weights it names, learned on scenes of other seeds with all labels. Whatever the arguments are,
    the same ones give the same pictures. Stopped at any time, the same command goes on.

    Example: teach-detr scenes crowd --world crowd --images 960 --thin 0.4 --teachers
    """
    from teach_detr.scenes.scene_set import make_scene_set

    if size not in TEACHER_SIZES:
        raise UsageError(
            f"unknown --size '{size}': expected one of {', '.join(TEACHER_SIZES)}."
            + nearest(size, TEACHER_SIZES)
        )
    recipe = TEACHER_SIZES[size]
    if steps is not None:
        recipe = replace(recipe, steps=steps)
    if yolo_epochs is not None:
        recipe = replace(recipe, yolo_epochs=yolo_epochs)
    asked = SceneSet(world, style, images, val_images, seed, thin)
    console = open_console(to_stderr=as_json)
    make_scene_set(out, asked, recipe if teachers else None, fresh, console)
    if as_json:
        counts = {"train2017": images, "val2017": val_images}
        described = str(out / "teachers.toml") if teachers else None
        print_json({"out": str(out), "images": counts, "teachers": described})
