"""Drawing a split of scenes, unless it is there: with a bar on a terminal, a line elsewhere."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from teach_detr.scenes.painting import make_split


def draw_once(
    console: Console,
    out: Path,
    split: str,
    n_images: int,
    seed: int,
    styles: Sequence[str],
    *,
    world: str = "toys",
    thin: float = 0.0,
    first_id: int = 1,
) -> None:
    """Draw a split as `make_split` does. One that has annotations is whole, as they come last."""
    if (out / "annotations" / f"instances_{split}.json").exists():
        return
    label = f"drawing {n_images} scenes, {world} by {'+'.join(styles)}, into {out / split}"
    if not console.is_terminal:
        console.print(label, markup=False, highlight=False, soft_wrap=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(label, total=n_images)
        make_split(
            out,
            split,
            n_images,
            seed,
            styles,
            world=world,
            thin=thin,
            first_id=first_id,
            progress=lambda done: bar.update(task, completed=done),
        )
