"""The stages of an experiment. What arms share is done once; what is done already is passed over.

label, check  as every pipeline                               teacher-infer run, teach-detr check
wrong         teachers spoiled on purpose                     teacher-infer import
calibrate     scores of teachers                              teach-detr calibrate
labels        samples, spoiled and merged annotations         OUT/labels
train         every condition, arm and seed                   student-train train
compare       tables, curves, pictures, a page                OUT/results.*, OUT/page.html
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from box_store import BoxStore
from box_store.errors import StoreError, UsageError, nearest
from box_store.forms.opening import annotations_of
from box_store.identity import seen_by
from box_store.places.files import alone_in, write_json
from student_train.evaluation.coco_metrics import read_annotations
from student_train.runs.recorded import write_settings
from student_train.runs.run_folder import changed_settings
from student_train.settings.telling import describe_origins
from student_train.training.describing import random_start
from teach_detr.experiment.config import Plan, named_teachers
from teach_detr.experiment.estimate import TIME_NOTE, estimate
from teach_detr.experiment.grid import Cell, Grid
from teach_detr.experiment.labels import (
    add_boxes,
    merged_boxes,
    sample_images,
    spoil_labels,
)
from teach_detr.experiment.outcome import gather
from teach_detr.experiment.progress import CellProgress
from teach_detr.experiment.racing import decided, heats
from teach_detr.experiment.tables import print_outcome
from teach_detr.experiment.workers import Ended, Job, run_here, run_on_cluster
from teach_detr.experiment.writing import write_outcome
from teach_detr.experiment.wrong_teacher import write_wrong
from teach_detr.runs.labelling import Labelling
from teach_detr.runs.marks import fingerprints
from teach_detr.runs.stages import StageError, stoppable

NOTE = "experiment.json"


def run_experiment(plan: Plan, folder: Path, *, dry_run: bool, console: Console) -> dict[str, Any]:
    """Do what is left of an experiment; its outcome as JSON, from a dry run what is left.

    `folder` is where the configuration lies: teachers' files are looked for there first.

    Raises:
        UsageError: `config.out` belongs to something else, another process works in it, or the data
            set is not there.
        StageError: a shared stage failed, or every run did.
        StageStopped: Ctrl-C or SIGTERM; the same command goes on.
    """
    experiment = Experiment(plan, folder, console)
    experiment.check_paths()
    if dry_run:
        return experiment.narrate()
    experiment.claim(NOTE)
    sentence = f"stopped. The same command goes on; everything is in {plan.config.out}"
    with alone_in(plan.config.out), stoppable(sentence):
        return experiment.run()


class Experiment(Labelling[Any]):
    """Everything between a plan and its page."""

    def __init__(self, plan: Plan, folder: Path, console: Console) -> None:
        super().__init__(plan.config, folder, console)
        self.plan = plan
        self.grid = Grid(plan)

    def check_paths(self) -> None:
        """Also raise UsageError for teachers that neither the store nor the file knows."""
        super().check_paths()
        known = {*self.config.teachers, *self.plan.wrong}
        try:
            known |= set(BoxStore.open(self.config.store_path).teachers)
        except StoreError:
            # labelling makes it; without teachers nothing will
            if not self.config.teachers:
                raise
        for where, name in named_teachers(self.plan):
            if name not in known:
                raise UsageError(
                    f"{where} names the teacher {name!r}, which is neither in the store "
                    f"{self.config.store_path} nor under [teachers]. Known are: "
                    f"{', '.join(sorted(known)) or 'none'}.{nearest(name, sorted(known))}"
                )

    def run(self) -> dict[str, Any]:
        """Everything that is not done yet, then the comparison."""
        self.warn()
        if self.grid.sampled:
            self.write_sample()
        self.fill_store()
        self.spoil_teachers()
        self.calibrate_teachers()
        self.write_label_files()
        failed = self.train()
        self.title("6 compare")
        outcome = gather(self.grid, failed, self.console)
        if not outcome.runs:
            raise StageError(
                f"no run of {self.config.out} came to its end: "
                + "; ".join(f"{name} {error}" for name, error in list(failed.items())[:3])
            )
        write_outcome(outcome, self.grid)
        print_outcome(outcome, self.console)
        return outcome.to_json()

    def narrate(self) -> dict[str, Any]:
        """Say what `run` would do and how long the training would take; the same as JSON."""
        self.narrate_store()
        cells = list(self.grid.cells())
        left = [cell for cell in cells if not self.is_trained(cell)]
        self.title(f"5 train: {len(left)} of {len(cells)} runs are left")
        self.warn()
        conditions, arms = len(self.plan.conditions), len(self.plan.arms)
        self.console.print(
            f"conditions {conditions}, arms {arms}, seeds {len(self.config.seeds)}",
            highlight=False,
        )
        for cell in left[:3]:
            self.show("python", "-m", "student_train.cli", *self.grid.train_arguments(cell))
        if len(left) > 3:
            self.console.print("...")
        for line in self._settings_lines(left):
            self._say(line)
        time = estimate(self.grid, cells, left, self._say)
        self.console.print(f"time      {time}", highlight=False, soft_wrap=True)
        return {
            "runs": [cell.name for cell in cells],
            "left": [cell.name for cell in left],
            "at_once": time.at_once,
            "seconds_each": time.each,
            "seconds": time.seconds,
            "measured": time.source,
        }

    def warn(self) -> None:
        """Say what makes a comparison worth less, before it is made."""
        seed = self.config.seeds[0]
        cells = (Cell(condition, arm, seed) for condition, arm in self.grid.pairs())
        students = (self.grid.student(cell).config for cell in cells)
        warnings = dict.fromkeys(line for student in students for line in random_start(student))
        for line in warnings:
            self._say(f"warning   {line}")

    # --- what arms share ------------------------------------------------------------------------

    def label_commands(self) -> list[list[object]]:
        """With a sample, teachers see its images only."""
        if not self.grid.sampled:
            return super().label_commands()
        data = self.config.data
        images = data.images_of(data.train_split)
        sample = ("--images", images, "--annotations", self.grid.sample_file)
        commands = [self.label_arguments(*sample)]
        if data.val_split in self.config.label_splits:
            commands.append(self.label_arguments(*self.one_split(data.val_split)))
        return commands

    def write_sample(self) -> None:
        """The labels as given of the images that are used."""
        data = self.config.data
        what = f"{data.images} images, seed {data.sample_seed}"
        if self.is_done("sample", what) and self.grid.sample_file.exists():
            return
        table = read_annotations(self.config.annotations(data.train_split))
        sample = sample_images(table, data.images, data.sample_seed)
        write_json(self.grid.sample_file, sample, indent=None)
        self.mark("sample", what)

    def spoil_teachers(self) -> None:
        """Teachers that are wrong on purpose, imported into the store."""
        for name, wrong in self.plan.wrong.items():
            what = json.dumps(vars(wrong))
            if self.is_done(f"wrong-{name}", what):
                continue
            self.title(f"3 spoil: {name}, {wrong.share:.0%} of the boxes of {wrong.of} moved")
            path = self.config.out / "wrong" / f"{name}.json"
            store, split = self._store()
            write_wrong(path, store, wrong, self.config.data.sample_seed)
            self.command(
                "teacher-infer",
                "import",
                *("--store", self.config.store_path, "--name", name, "--only-listed"),
                *("--results", path, "--licence", f"as {wrong.of}", *split),
            )
            self.mark(f"wrong-{name}", what)

    def _store(self) -> tuple[BoxStore, tuple[str, ...]]:
        """The store as the training annotations see it, and options that name their split where it
        has others whose ids collide.
        """
        data = self.config.data
        coco = annotations_of(self.config.annotations(data.train_split))
        store = seen_by(BoxStore.open(self.config.store_path), coco)
        return store, () if store.shown is None else ("--split", coco.split)

    def calibrate_teachers(self) -> None:
        """Scores against the labels as given: what a user has before any condition spoils them."""
        for name in self.config.calibrate:
            if self.is_done(f"calibrated-{name}"):
                continue
            self.title(f"3 calibrate: {name}")
            self.command(
                "teach-detr",
                "calibrate",
                *(self.config.store_path, "--teacher", name),
                *("--annotations", self.grid.sample_file),
            )
            self.mark(f"calibrated-{name}")

    def write_label_files(self) -> None:
        """Annotations of conditions and of arms that merge boxes into them."""
        seed = self.config.data.sample_seed
        for condition, name in self.grid.pairs():
            path = self.grid.label_file(condition, name)
            what = self.grid.label_recipe(condition, name)
            if path == self.grid.sample_file or (
                self.is_done(f"labels-{path.stem}", what) and path.exists()
            ):
                continue
            arm = self.plan.arms[name]
            spoiled = self.plan.conditions[condition]
            table = spoil_labels(read_annotations(self.grid.sample_file), spoiled, seed)
            if arm.merge != "none":
                found = merged_boxes(self._store()[0], arm)
                table = add_boxes(table, found, arm.merge_iou)
            write_json(path, table, indent=None)
            self.mark(f"labels-{path.stem}", what)
            self.console.print(
                f"labels    {path.stem}: {len(table['annotations'])} boxes in "
                f"{len(table['images'])} images",
                highlight=False,
            )

    # --- train ----------------------------------------------------------------------------------

    def what(self, cell: Cell) -> str:
        """Everything that decides what a run computes."""
        return self.grid.what(cell, fingerprints(self.config.store_path))

    def is_trained(self, cell: Cell) -> bool:
        """Whether its run came to its end, with the present settings and teachers."""
        return self._is_marked(f"runs/{cell.name}", cell)

    def _is_marked(self, stage: str, cell: Cell) -> bool:
        mark = self.marked(stage)
        if mark is None or mark.startswith("{"):
            return mark == self.what(cell)
        # earlier versions marked with a command line: the run's own record says what it was
        return self.grid.is_as_recorded(cell)

    def train(self) -> dict[str, str]:
        """Every run that is left; those that failed, with the end of what they said."""
        cells = list(self.grid.cells())
        if not self.config.race:
            return self._train(cells)
        failed: dict[str, str] = {}
        settled: set[tuple[str, str]] = set()
        for heat in heats(cells, self.config.seeds):
            running = [cell for cell in heat if (cell.condition, cell.arm) not in settled]
            if not running:
                break
            failed |= self._train(running)
            now = decided(gather(self.grid, failed))
            for condition, arm in sorted(now - settled):
                self._say(f"race      {condition}/{arm} is settled, and trained no further")
            settled |= now
        return failed

    def _train(self, cells: Sequence[Cell]) -> dict[str, str]:
        left = {cell.name: cell for cell in cells if not self.is_trained(cell)}
        n_cells = len(cells)
        self.title(f"5 train: {len(left)} of {n_cells} runs are left")
        if not left:
            return {}
        failed: dict[str, str] = {}
        jobs = [self._job(cell) for cell in left.values()]
        cluster = self.config.cluster
        with CellProgress(self.console, n_cells, n_cells - len(left)) as progress:

            def finished(ended: Ended) -> None:
                cell = left[ended.job.name]
                if ended.error is None:
                    self._note_time(cell, ended.seconds)
                    self.mark(f"runs/{cell.name}", self.what(cell))
                else:
                    failed[cell.name] = ended.error
                progress.add(ended)

            if cluster.address:
                run_on_cluster(
                    jobs, cluster.address, cluster.cpus, cluster.gpus, finished, progress.wait
                )
            else:
                run_here(jobs, self.config.devices, finished, progress.wait)
        return failed

    def _settings_lines(self, cells: Sequence[Cell]) -> list[str]:
        """What the first of the runs trains, and what is different in the next ones."""
        if not cells:
            return []
        first, *others = (self.grid.student(cell) for cell in cells[:3])
        lines = [f"{cells[0].name}", *describe_origins(first)]
        for cell, other in zip(cells[1:3], others, strict=True):
            changes = changed_settings(first.config, other.config, all_of_them=True)
            lines.append(f"{cell.name}: {'; '.join(changes)}")
        return lines

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _job(self, cell: Cell) -> Job:
        """The command that goes on with a run, or begins it anew where its settings changed."""
        folder = self.grid.folder(cell)
        started = self._is_marked(f"started/{cell.name}", cell)
        if not started:
            # should it fail now, what it was before must not stand for it in the tables
            (folder / TIME_NOTE).unlink(missing_ok=True)
        self.mark(f"started/{cell.name}", self.what(cell))
        write_settings(self.grid.settings_file(cell), self.grid.student(cell))
        words = [*self.grid.train_arguments(cell), "--resume" if started else "--overwrite"]
        return Job(cell.name, ("student_train.cli", *words), folder / "log.txt")

    def _note_time(self, cell: Cell, seconds: float) -> None:
        note = {"seconds": round(seconds, 1), "ended": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        (self.grid.folder(cell) / TIME_NOTE).write_text(json.dumps(note), encoding="utf-8")
