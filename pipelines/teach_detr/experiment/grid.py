"""The runs of an experiment: one for each condition, arm and seed, and the command of each."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from box_store.errors import TeachDetrError
from student_train.config import TrainConfig
from student_train.runs.run_folder import SavedRun, changed_settings
from student_train.settings.overrides import Resolved
from teach_detr.experiment.config import Plan
from teach_detr.runs.marks import decisive
from teach_detr.runs.run_config import student_settings, table


@dataclass(frozen=True)
class Cell:
    """One run, by the names of its condition and arm."""

    condition: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """CONDITION/ARM/seed-N: how it is called, and where it lies."""
        return f"{self.condition}/{self.arm}/seed-{self.seed}"


class Grid:
    """All cells of an experiment, and where everything about them lies.

    ::

        OUT/labels/*.json                annotations that are not those of the data set
        OUT/runs/CONDITION/ARM/seed-N/   a run folder of student-train, its settings in cell.json
                                     and what it printed in log.txt
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.out = plan.config.out.absolute()
        self._students: dict[Cell, Resolved[TrainConfig]] = {}

    def cells(self) -> Iterator[Cell]:
        """Seed by seed, so that an experiment that is stopped has whole comparisons."""
        for seed in self.plan.config.seeds:
            for condition, arm in self.pairs():
                yield Cell(condition, arm, seed)

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Every condition with the arms that are trained under it."""
        for condition in self.plan.conditions:
            for name, arm in self.plan.arms.items():
                if not arm.only or condition in arm.only:
                    yield condition, name

    def folder(self, cell: Cell) -> Path:
        """The run folder."""
        return self.out / "runs" / cell.name

    def results(self, cell: Cell) -> Path:
        """Detections of the last evaluation."""
        return self.folder(cell) / "results" / f"{self.plan.config.data.val_split}.json"

    @property
    def sampled(self) -> bool:
        """Whether a part of the training images is used."""
        return self.plan.config.data.images is not None

    @property
    def sample_file(self) -> Path:
        """Labels as given of the images that are used."""
        data = self.plan.config.data
        if self.sampled:
            return self.out / "labels" / "sample.json"
        return self.plan.config.annotations(data.train_split).absolute()

    def label_file(self, condition: str, arm: str) -> Path:
        """The annotations that a cell trains on."""
        merge = self.plan.arms[arm].merge
        if merge != "none":
            return self.out / "labels" / f"{condition}+{arm}.json"
        settings = self.plan.conditions[condition]
        if settings.missing or settings.swapped or settings.jitter:
            return self.out / "labels" / f"{condition}.json"
        return self.sample_file

    def label_recipe(self, condition: str, arm: str) -> str:
        """Everything that decides what is in `label_file`."""
        spoiled = asdict(self.plan.conditions[condition])
        del spoiled["preset"], spoiled["settings"]
        added = asdict(self.plan.arms[arm])
        recipe = {
            "images": self.plan.config.data.images,
            "seed": self.plan.config.data.sample_seed,
            **spoiled,
            **{key: added[key] for key in ("merge", "merge_floor", "merge_iou")},
        }
        return json.dumps(recipe, sort_keys=True)

    def student(self, cell: Cell) -> Resolved[TrainConfig]:
        """What a cell trains: its preset, tables of settings, data, teachers and seed."""
        if cell not in self._students:
            self._students[cell] = self._student(cell)
        return self._students[cell]

    def _student(self, cell: Cell) -> Resolved[TrainConfig]:
        config = self.plan.config
        preset, tables = self.plan.student(cell.condition, cell.arm)
        shared = {
            **config.data.settings(),
            "teachers.store": config.store_path.absolute(),
            "teachers.names": self.plan.arms[cell.arm].teachers,
            "keep_last": 1,
        }
        own: dict[str, Any] = {"seed": cell.seed}
        labels = self.label_file(cell.condition, cell.arm)
        if labels != config.annotations(config.data.train_split).absolute():
            own["data.train_images"] = config.data.images_of(config.data.train_split).absolute()
            own["data.train_annotations"] = labels
        return student_settings(
            preset, table("data, store", shared), *tables, table("labels, seeds", own)
        )

    def is_as_recorded(self, cell: Cell) -> bool:
        """Whether the run of a cell says of itself that it was trained with these settings."""
        try:
            record = SavedRun(self.folder(cell)).read()
        except TeachDetrError:
            return False
        wanted = self.student(cell).config
        # how many classes there are is found in the data
        known = replace(
            wanted, model=replace(wanted.model, n_classes=record.config.model.n_classes)
        )
        lengths = [(config.epochs, config.steps) for config in (record.config, wanted)]
        return not changed_settings(record.config, known) and lengths[0] == lengths[1]

    def settings_file(self, cell: Cell) -> Path:
        """Where its settings lie for the trainer."""
        return self.folder(cell) / "cell.json"

    def train_arguments(self, cell: Cell) -> list[str]:
        """Arguments of `student-train` apart from the device and what is done with an old run."""
        return [
            *("train", "--config", str(self.settings_file(cell))),
            *("--out", str(self.folder(cell))),
        ]

    def what(self, cell: Cell, teachers: Mapping[str, str]) -> str:
        """Everything that decides what a run computes: settings that are not at their default,
        labels, and its teachers; `teachers` are the fingerprints of those in the store.
        """
        labels = json.loads(self.label_recipe(cell.condition, cell.arm))
        known = decisive(self.student(cell), teachers)
        return json.dumps({"labels": labels, **known}, sort_keys=True)
