"""What the commands `eval` and `presets` do, apart from printing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from box_store.forms.protocol import Split
from box_store.patience import Say
from box_store.places.files import check_writable, local_folder, write_json
from box_store.places.locations import Location, RemoteError, RemotePath, as_typed
from student_train.config import problems_of
from student_train.data.splits import find_split, make_validation, open_split
from student_train.evaluation.confusion import Confusion, confusion_matrix
from student_train.evaluation.evaluate import Evaluation, evaluate_model
from student_train.evaluation.plots import plot_confusion, plot_precision_recall, require_plots
from student_train.machine.runtime import Runtime
from student_train.runs.loading import load_any
from student_train.runs.run_folder import beside
from student_train.runs.trained import check_weights_name
from student_train.settings.origin import ARGUMENT
from student_train.settings.overrides import Layer, merge


@dataclass(frozen=True)
class EvaluatedRun:
    """An evaluation, where it was written, and which weights and split it is of."""

    evaluation: Evaluation
    path: Location
    weights: str
    source: Split
    confusion: Confusion
    pictures: tuple[Location, ...]
    unwritten: str = ""
    """why not all of it could be written, for people"""


def evaluate_run(
    run: Path | RemotePath,
    data: Path | None,
    split: str | None,
    weights: str,
    device: str,
    out: Path | RemotePath | None,
    overrides: Mapping[str, str],
    *,
    confusion_score: float = 0.3,
    plot: bool = False,
    say: Say = lambda text: None,
) -> EvaluatedRun:
    """Evaluate the weights of a run on a split; by default on the one it was trained with, and on
    all of it: `data.val_limit` counts only if it is among the overrides.

    With torchrun's processes the images are shared out, and the first process writes.

    Args:
        confusion_score: detections below it do not count as confusions.
        plot: draw the curves and the confusion matrix beside their JSON.
        say: hears how far it is.

    Raises:
        TeachDetrError: the run, the weights or the data are missing or do not fit each other, or
            the folder of the results takes none.
    """
    check_weights_name(weights)
    if plot:
        require_plots()
    student = load_any(run, weights)
    # a limit kept the evaluations short while it was training
    whole = replace(student.config, data=replace(student.config.data, val_limit=None))
    config = merge(whole, [Layer(ARGUMENT, overrides)], problems_of).config
    where = config.data
    if data is not None or split is not None:
        # the run's explicit paths belong to the split that it was trained with
        where = replace(where, val_images=None, val_annotations=None)
    if data is not None:
        where = replace(where, root=data)
    if split is not None:
        where = replace(where, val_split=split)
    config = replace(config, data=where)
    source = find_split(where, where.val_split, where.val_images, where.val_annotations)
    runtime = Runtime.start(device, config.amp, config.threads)
    validation = make_validation(
        config,
        source,
        open_split(source),
        student.class_space,
        runtime.world,
        config.eval_batch_size or min(config.batch_size, 8),
        student.resizes,
    )
    folder = as_typed(out) if out else beside(run, "results")
    unwritten = ""
    with runtime.world.together():
        if runtime.world.is_first:
            check_writable(folder)
        model = student.model.to(runtime.device)
        evaluation = evaluate_model(model, validation, runtime, say=say)
        confusion = runtime.world.on_first(
            lambda: confusion_matrix(
                validation.source.coco,
                evaluation.found,
                validation.dataset.image_ids.tolist(),
                score=confusion_score,
            )
        )
        names: tuple[str, ...] = ()
        if runtime.world.is_first:
            try:
                with local_folder(folder) as here:
                    evaluation.write(here, source.name)
                    write_json(here / f"{source.name}.confusion.json", confusion.to_json())
                    if plot:
                        names = _draw(evaluation, confusion, here, source.name)
            except (OSError, RemoteError) as error:
                # what took so long to measure is told in any case
                unwritten = f"{folder} could not be written: {error}"
    path, pictures = folder / f"{source.name}.json", tuple(folder / name for name in names)
    return EvaluatedRun(evaluation, path, student.origin, source, confusion, pictures, unwritten)


def _draw(evaluation: Evaluation, confusion: Confusion, folder: Path, name: str) -> tuple[str, ...]:
    """Names of the pictures of an evaluation."""
    curves, matrix = f"{name}.curves.png", f"{name}.confusion.png"
    plot_precision_recall(evaluation.metrics.curves.to_json(), folder / curves)
    plot_confusion(confusion.names, confusion.counts, folder / matrix)
    return curves, matrix
