"""From a resolved configuration to a finished run: the steps before and after the training loop."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal, overload

import torch
from rich.console import Console

from box_store.categories import ClassSpace
from box_store.places.locations import Location, RemotePath, as_typed
from student_train.config import TrainConfig, changed
from student_train.data.splits import open_split
from student_train.errors import ConfigError, RunError
from student_train.evaluation.evaluate import Evaluation
from student_train.machine.runtime import Runtime
from student_train.models import build_student
from student_train.runs import provenance
from student_train.runs.run_folder import RunFolder, SavedRun, changed_settings
from student_train.runs.working_folder import working_folder
from student_train.settings.origin import DATA
from student_train.settings.overrides import Layer, Resolved
from student_train.training.choice import as_recorded, with_choice
from student_train.training.choice_table import choice_notes, choice_table
from student_train.training.describing import (
    DryRun,
    describe,
    dry_run_of,
    random_start,
    space_on_disk,
)
from student_train.training.engine import Trainer
from student_train.training.foreseen import foreseen
from student_train.training.initialising import initialise
from student_train.training.inputs import make_inputs, train_source
from student_train.training.progress import ProgressLine
from student_train.training.teachers import taught_classes

N_CLASSES = "model.n_classes"


@overload
def train(
    resolved: Resolved[TrainConfig],
    out: Path | RemotePath,
    console: Console,
    *,
    resume: bool = ...,
    overwrite: bool = ...,
    dry_run: Literal[False] = ...,
    command: Sequence[str] = ...,
) -> Evaluation | None: ...


@overload
def train(
    resolved: Resolved[TrainConfig],
    out: Path | RemotePath,
    console: Console,
    *,
    resume: bool = ...,
    overwrite: bool = ...,
    dry_run: bool,
    command: Sequence[str] = ...,
) -> Evaluation | DryRun | None: ...


def train(
    resolved: Resolved[TrainConfig],
    out: Path | RemotePath,
    console: Console,
    *,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    command: Sequence[str] = (),
) -> Evaluation | DryRun | None:
    """Train into the folder `out`; the last evaluation, None without an evaluation split.

    A dry run reads everything, says what would happen, writes nothing into `out` and returns that.

    Raises:
        RunError: `out` holds a run already, or the one to resume had other settings; or it lies at
            a URL which could not be reached at the end.
        TeachDetrError: anything else a user can put right; see `Trainer.train`.
    """
    config = resolved.config
    runtime = Runtime.start(config.device, config.amp, config.threads)
    with runtime.world.together():
        saved = SavedRun(as_typed(out))
        if saved.is_used() and not (resume or overwrite):
            raise RunError(
                f"{saved.root} holds a run already: --resume goes on with it, --overwrite starts "
                "anew, or choose another --out"
            )
        with working_folder(saved.root, runtime.world, console, not resume, dry_run) as folder:
            return _train(
                resolved, saved, folder, console, runtime, resume, overwrite, dry_run, command
            )


def _train(
    resolved: Resolved[TrainConfig],
    saved: SavedRun[Location],
    folder: RunFolder,
    console: Console,
    runtime: Runtime,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    command: Sequence[str],
) -> Evaluation | DryRun | None:
    world = runtime.world
    progress = ProgressLine(console if world.is_first else None)
    source = train_source(resolved.config)
    progress.say(f"reading   {source.annotations}")
    coco = open_split(source, taught_classes(resolved.config.teachers))
    space = ClassSpace(resolved.config.data.class_space, coco.categories)
    resolved = with_classes(resolved, space)
    resuming = resume and saved.has_state()
    if resume and saved.config_file.exists():
        resolved, choices = as_recorded(resolved, saved.read()), []
    else:
        resolved, choices = with_choice(resolved, coco)
    config = resolved.config
    inputs = make_inputs(config, coco, world)
    remarks = [] if resuming else random_start(config)
    if resume and saved.config_file.exists():
        remarks += check_resumable(saved, config, inputs.fingerprints)
    torch.manual_seed(config.seed)
    model = build_student(config.model)
    report = None if resuming or config.init is None else initialise(model, config.init, space)

    world.barrier()
    # what runs at a URL has a lease, under which a newcomer displaces whoever is there
    owned = world.is_first and not dry_run and folder.root == folder.place
    with folder.alone() if owned else nullcontext():
        if owned and resuming != (resume and saved.has_state()):
            raise RunError(f"{folder.place} was trained on meanwhile: give the command again")
        if world.is_first and not dry_run:
            if overwrite and not resume:
                folder.clear()
            if not resuming:
                record = {} if report is None else report.record
                fingerprints = {**inputs.fingerprints, **record}
                folder.write(resolved, space, command, fingerprints, choices, inputs.licences)
                folder.publish()
        trainer = Trainer(config, model, inputs, folder, runtime, progress)
        remarks += foreseen(config, inputs, trainer.total_steps)
        for line in describe(resolved, folder, runtime, inputs, trainer, report):
            progress.say(line)
        for line in (*remarks, *space_on_disk(folder.root, trainer)):
            progress.say(f"warning   {line}")
        if choices:
            progress.show_table(choice_table(choices))
        for line in choice_notes(choices):
            progress.say(f"teacher   {line}")
        if dry_run:
            then = f"resume {folder.place}" if resuming else f"start in {folder.place}"
            progress.say(f"dry run   nothing was written; without --dry-run this would {then}")
            warnings = (*remarks, *space_on_disk(folder.root, trainer))
            return dry_run_of(
                resolved, folder, runtime, inputs, trainer, resuming, warnings, choices
            )
        return _loop(trainer, progress, resume, resuming)


def _loop(
    trainer: Trainer, progress: ProgressLine, resume: bool, resuming: bool
) -> Evaluation | None:
    """Train from the newest state, or from the start."""
    if resuming:
        note = trainer.resume()
        progress.say(f"{note} resuming after step {trainer.position.step}".strip())
        if trainer.position.step >= trainer.total_steps:
            progress.say("all its steps are done; more epochs go on from here")
    elif resume:
        progress.say("nothing to resume: starting")
    try:
        return trainer.train()
    finally:
        progress.close()
        for problem in trainer.inputs.train_loader.problems.values():
            progress.say(f"skipped: {problem.message}")


def check_resumable(
    run: SavedRun[Location], config: TrainConfig, fingerprints: Mapping[str, str]
) -> list[str]:
    """What differs from how a run was started without spoiling it, a sentence each.

    Raises:
        RunError: settings or data that a run cannot change; each is named.
    """
    record = run.read()
    refused = changed_settings(record.config, config)
    refused += [
        f"content of {name.replace('_', ' ')}: {change}"
        for name in ("train_annotations", "boxes")
        for change in _changed_hash(record.fingerprints.get(name), fingerprints.get(name))
    ]
    if refused:
        raise RunError(
            f"{run.root} was started with other settings, and a resumed run keeps them "
            f"({'; '.join(refused)}): leave them out, or start a new run with "
            f"--init {run.root}"
        )
    remarks = []
    if list(
        _changed_hash(*(f.get("val_annotations") for f in (record.fingerprints, fingerprints)))
    ):
        remarks.append("the evaluation split has changed: compare with later evaluations only")
    if others := provenance.changed(record.versions, provenance.versions()):
        remarks.append(f"not bit-identical any more, versions have changed ({'; '.join(others)})")
    if config.optim.schedule == "cosine" and (
        (config.epochs, config.steps) != (record.config.epochs, record.config.steps)
    ):
        remarks.append("the number of steps has changed, and the cosine of the learning rate too")
    return remarks


def _changed_hash(before: str | None, now: str | None) -> Iterator[str]:
    if before and now and before != now:
        yield f"{before[:12]} -> {now[:12]}"


def with_classes(resolved: Resolved[TrainConfig], space: ClassSpace) -> Resolved[TrainConfig]:
    """The configuration with as many logits as the data needs, unless a user asked for more.

    Raises:
        ConfigError: a user asked for fewer.
    """
    asked = resolved.config.model.n_classes
    origin = resolved.origins.get(N_CLASSES)
    if origin is not None and origin.is_asked_for:
        if asked < space.n_classes:
            raise ConfigError(
                [
                    f"{N_CLASSES}={asked} is too small: {len(space.categories)} categories in "
                    f"{space.kind} class space need {space.n_classes} logits"
                ]
            )
        return resolved
    if asked == space.n_classes:
        return resolved
    config = replace(
        resolved.config, model=replace(resolved.config.model, n_classes=space.n_classes)
    )
    return Resolved(config, {**resolved.origins, N_CLASSES: DATA})


def resumed(out: Location, arguments: Sequence[Layer]) -> Resolved[TrainConfig]:
    """The configuration of a run folder, with new values of operational settings on top.

    Raises:
        RunError: `out` is no run folder.
        ConfigError: arguments that cannot be used.
    """
    return changed(SavedRun(out).read().resolved, arguments)
