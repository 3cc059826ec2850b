"""`teach-detr run`: both stages from one file, resumable at every point.

label      teachers over the images, into the store    teacher-infer run
check      is the store whole                          teach-detr check
train      the student, with and maybe without them    student-train train
compare    AP of teachers and students                 OUT/report.json
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from box_store import BoxStore
from box_store.places.files import alone_in, write_json
from student_train.evaluation.evaluate import METRIC_NAMES
from student_train.evaluation.tables import percent
from teach_detr.assessment.scoring import score_teachers
from teach_detr.runs.labelling import Labelling
from teach_detr.runs.run_config import BASELINE, TAUGHT, RunConfig, read_run, setting_arguments
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
            words = self.train_command(name, teachers)
            done = self.is_done(name, " ".join(words))
            self.title(f"3 train: {name}{' (done already)' if done else ''}")
            self.show("python", "-m", *map(shlex.quote, words))
            train[name] = {"command": ["python", "-m", *words], "done": done}
        self.title("4 compare")
        self.console.print(f"AP of teachers and students into {self.config.out / 'report.json'}")
        return {"train": train}

    # --- train ----------------------------------------------------------------------------------

    def train(self, name: str, teachers: str) -> None:
        """One student, unless the same command finished before."""
        module, *arguments = self.train_command(name, teachers)
        what = " ".join((module, *arguments))
        if self.is_done(name, what):
            self.console.print(f"{name} is done already")
            return
        self.show("python", "-m", module, *arguments)
        self.python(module, *arguments)
        self.mark(name, what)

    def train_command(self, name: str, teachers: str) -> list[str]:
        """The module to run and its arguments."""
        config, cluster = self.config, self.config.cluster
        words: Sequence[object] = [
            *("train", "--preset", config.student.preset),
            *("--data", config.data.root),
            *("--train-split", config.data.train_split, "--val-split", config.data.val_split),
            *("--store", config.store_path, "--teachers", teachers),
            *("--out", self.run_folder(name), "--resume"),
            *setting_arguments(config.student.settings),
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
