"""The runs of an experiment: one for each condition, arm and seed, and the command of each."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from student_train.config import TrainConfig
from teach_detr.experiment.config import Plan
from teach_detr.runs.run_config import setting_arguments, student_config


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
        OUT/runs/CONDITION/ARM/seed-N/   a run folder of student-train, with what it printed
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.out = plan.config.out.absolute()

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

    def student(self, cell: Cell) -> TrainConfig:
        """What the trainer makes of a cell's preset and settings."""
        return student_config(*self.plan.student(cell.condition, cell.arm))

    def train_arguments(self, cell: Cell) -> list[str]:
        """Arguments of `student-train` apart from the device and what is done with an old run."""
        config = self.plan.config
        data = config.data
        preset, *tables = self.plan.student(cell.condition, cell.arm)
        words: list[object] = [
            *("train", "--preset", preset),
            *("--data", data.root.absolute()),
            *("--train-split", data.train_split, "--val-split", data.val_split),
            *(
                "--store",
                config.store_path.absolute(),
                "--teachers",
                self.plan.arms[cell.arm].teachers,
            ),
            *("--out", self.folder(cell)),
            "keep_last=1",
            *(word for table in tables for word in setting_arguments(table)),
            f"seed={cell.seed}",
        ]
        labels = self.label_file(cell.condition, cell.arm)
        if labels != config.annotations(data.train_split).absolute():
            words.append(f"data.train_images={data.root.absolute() / data.train_split}")
            words.append(f"data.train_annotations={labels}")
        return list(map(str, words))
