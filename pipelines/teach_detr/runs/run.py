"""`teach-detr run`: both stages from one file, resumable at every point.

label      teachers over the images, into the store    teacher-infer run
check      is the store whole                          teach-detr check
train      the student, with and maybe without them    student-train train
compare    AP of teachers and students                 OUT/report.json
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from box_store import BoxStore
from box_store.places.files import alone_in, write_json
from student_train.config import TrainConfig
from student_train.evaluation.evaluate import METRIC_NAMES
from student_train.evaluation.tables import percent
from student_train.runs.recorded import write_settings
from student_train.settings.overrides import Resolved, as_text, settings
from student_train.settings.telling import describe_origins
from teach_detr.assessment.scoring import score_teachers
from teach_detr.runs.labelling import Labelling
from teach_detr.runs.marks import decisive, fingerprints
from teach_detr.runs.run_config import (
    BASELINE,
    TAUGHT,
    RunConfig,
    read_run,
    student_settings,
    table,
)
from teach_detr.runs.stages import last_metrics, stoppable

SHOWN = METRIC_NAMES[:6]


def run_file(
    file: Path, overrides: dict[str, str], *, dry_run: bool, console: Console
) -> dict[str, Any]:
    """Do what is left of the run that `file` describes; its report, from a dry run what is left.

    Raises:
        ConfigError: the file or an override cannot be used.
        UsageError: `config.out` belongs to something else, another process works in it, or the data
            set is not there.
        StageError: a stage failed.
        StageStopped: Ctrl-C or SIGTERM; the same command goes on.
    """
    config = read_run(file, overrides)
    pipeline = Pipeline(config, file.parent, console)
    pipeline.check_paths()
    if dry_run:
        return pipeline.narrate()
    pipeline.claim("run.json")
    sentence = f"stopped. The same command goes on; everything is in {config.out}"
    with alone_in(config.out), stoppable(sentence):
        return pipeline.run()


class Pipeline(Labelling[RunConfig]):
    """The stages of a run, in order. Each is safe to run again."""

    def run(self) -> dict[str, Any]:
        """Everything that is not done yet, then the comparison."""
        self.fill_store()
        for name, teachers in self.config.arms.items():
            self.title(f"3 train: {name}")
            self.train(name, teachers)
        self.title("4 compare")
        report = self.report()
        write_json(self.config.out / "report.json", report)
        self.show_report(report)
        return report

    def narrate(self) -> dict[str, Any]:
        """Say what `run` would do: the commands, and what the first of them would find.

        Returns the commands that train, as JSON.
        """
        self.narrate_store()
        train: dict[str, Any] = {}
        for name, teachers in self.config.arms.items():
            words, student = self.train_command(name), self.student(teachers)
            done = self.is_trained(name, teachers)
            self.title(f"3 train: {name}{' (done already)' if done else ''}")
            self.show("python", "-m", *map(shlex.quote, words))
            for line in describe_origins(student):
                self.console.print(line, markup=False, highlight=False, soft_wrap=True)
            values = settings(student.config)
            told = {key: as_text(values[key].value) for key in student.origins}
            train[name] = {"command": ["python", "-m", *words], "done": done, "settings": told}
        self.title("4 compare")
        self.console.print(f"AP of teachers and students into {self.config.out / 'report.json'}")
        return {"train": train}

    # --- train ----------------------------------------------------------------------------------

    def train(self, name: str, teachers: str) -> None:
        """One student, unless one with the same settings, of the same teachers, finished before."""
        if self.is_trained(name, teachers):
            self.console.print(f"{name} is done already")
            return
        write_settings(self.settings_file(name), self.student(teachers))
        module, *arguments = self.train_command(name)
        self.show("python", "-m", module, *arguments)
        self.python(module, *arguments)
        self.mark(name, self.what(name, teachers))

    def student(self, teachers: str) -> Resolved[TrainConfig]:
        """What is trained."""
        config = self.config
        shared = {
            **config.data.settings(),
            "teachers.store": config.store_path.absolute(),
            "teachers.names": teachers,
        }
        own = table("student.settings", config.student.settings)
        return student_settings(config.student.preset, table("data, store", shared), own)

    def what(self, name: str, teachers: str) -> str:
        """Everything that decides what a student becomes: settings, launcher, and its teachers."""
        known = decisive(self.student(teachers), fingerprints(self.config.store_path))
        return json.dumps({"command": self.train_command(name), **known}, sort_keys=True)

    def is_trained(self, name: str, teachers: str) -> bool:
        """Whether such a student was trained to its end."""
        return self.is_done(name, self.what(name, teachers))

    def settings_file(self, name: str) -> Path:
        """Where the trainer finds a student's settings; absolute, it may start elsewhere."""
        return (self.config.out / f"{name}.json").absolute()

    def train_command(self, name: str) -> list[str]:
        """The module to run and its arguments."""
        config, cluster = self.config, self.config.cluster
        words: Sequence[object] = [
            *("train", "--config", self.settings_file(name)),
            *("--out", self.run_folder(name), "--resume"),
        ]
        train = list(map(str, words))
        if cluster.launcher == "torchrun":
            start = ["--standalone", "--nproc-per-node", str(cluster.processes)]
            return ["torch.distributed.run", *start, "-m", "student_train.cli", *train]
        if cluster.launcher == "ray":
            options = {
                "--address": cluster.address or "local",
                "--processes": cluster.processes,
                "--cpus": cluster.cpus,
                "--gpus": cluster.gpus,
                "--max-failures": cluster.max_failures,
                "--storage": (config.out / "ray").absolute(),
            }
            given = [str(word) for option in options.items() for word in option]
            return ["teach_detr.runs.ray_training", *given, "--", *train]
        return ["student_train.cli", *train]

    def run_folder(self, name: str) -> Path:
        """The run folder of a student; absolute, for its processes may start elsewhere."""
        return (self.config.out / name).absolute()

    # --- compare --------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Metrics of every teacher that saw the evaluation split, and of every student."""
        config = self.config
        students = {name: self._metrics(name) for name in config.arms}
        report: dict[str, Any] = {"preset": config.student.preset, "students": students}
        if config.baseline:
            report["difference"] = {
                name: _difference(students[TAUGHT][name], students[BASELINE][name])
                for name in SHOWN
            }
        scores = []
        if config.data.val_split != "none":
            store = BoxStore.open(config.store_path)
            scores = score_teachers(store, config.annotations(config.data.val_split))
        return report | {"teachers": [score.to_json() for score in scores]}

    def _metrics(self, name: str) -> dict[str, float | None]:
        if self.config.data.val_split == "none":
            return dict.fromkeys(METRIC_NAMES)
        return last_metrics(self.run_folder(name), self.config.data.val_split)

    def show_report(self, report: dict[str, Any]) -> None:
        """The comparison as a table."""
        table = Table("", *SHOWN, title=f"{self.config.data.val_split}, in percent")
        for score in report["teachers"]:
            table.add_row(score["teacher"], *(percent(score[name]) for name in SHOWN))
        table.add_section()
        for name, metrics in report["students"].items():
            table.add_row(name, *(percent(metrics[metric]) for metric in SHOWN))
        if "difference" in report:
            differences = report["difference"].values()
            table.add_row(
                "difference", *("-" if d is None else f"{100 * d:+.1f}" for d in differences)
            )
        self.console.print(table)
        self.console.print(f"report    {self.config.out / 'report.json'}", soft_wrap=True)
        for name in self.config.arms:
            self.console.print(f"{name:9} {self.run_folder(name)}", soft_wrap=True)


def _difference(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before
