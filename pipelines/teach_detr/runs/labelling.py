"""What pipelines from a file begin with: their folder, their data, and a store of teachers.

label      teachers over the images, into the store    teacher-infer run
check      is the store whole                          teach-detr check
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

from rich.console import Console

from box_store.errors import DataError, UsageError
from box_store.forms.opening import open_data
from box_store.places.files import write_json
from box_store.places.locations import location
from box_store.wording import counted
from student_train.settings.overrides import to_plain
from teach_detr.runs.run_config import LabellingConfig, teacher_arguments
from teach_detr.runs.stages import Stages

C = TypeVar("C", bound=LabellingConfig)


class Labelling(Stages, Generic[C]):
    """The first stages of a pipeline. Each is safe to run again."""

    def __init__(self, config: C, folder: Path, console: Console) -> None:
        """`folder` is where the configuration lies: teachers' files are looked for there first."""
        super().__init__(config.out, console)
        self.config = config
        self.teachers = teacher_arguments(config, folder)

    def check_paths(self) -> None:
        """Raise UsageError for a data set that is not there: now, not after the teachers."""
        config = self.config
        data = config.data
        try:
            for split in {data.train_split, data.val_split} - {"none"}:
                if data.is_laid_out(split):
                    open_data(data.root).split(split)
                    continue
                for path in (data.images_of(split), data.annotations_of(split)):
                    if not location(path).exists():
                        raise DataError(f"{path} is not there")
        except DataError as error:
            raise UsageError(
                f"{error}. data.root should be a data set as `teach-detr data` knows it; or give "
                "data.train_images, data.train_annotations, data.val_images and "
                "data.val_annotations"
            ) from error

    def claim(self, note: str) -> None:
        """Make the folder, or see that the file `note` in it marks it as one; write that file anew
        with the configuration.

        Raises UsageError for a folder of something else.
        """
        out = self.config.out
        if out.exists() and any(out.iterdir()) and not (out / note).exists():
            raise UsageError(f"{out} is not empty and holds no {note}: choose another `out`")
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / note, to_plain(self.config))

    def fill_store(self) -> None:
        """Label what no teacher has labelled yet, then check the store."""
        if self.teachers:
            self.title(f"1 label: {counted(len(self.teachers), 'teacher')}")
            for words in self.label_commands():
                self.command("teacher-infer", "run", *words)
        self.title("2 check the store")
        self.command("teach-detr", "check", self.config.store_path)

    def narrate_store(self) -> None:
        """Say what `fill_store` would do, and what is left for it to do."""
        if self.teachers:
            self.title(f"1 label: {counted(len(self.teachers), 'teacher')}")
            for words in self.label_commands():
                self.show("teacher-infer", "run", *map(shlex.quote, map(str, words)))
                self.python("teacher_infer.cli", "plan", *self.plan_arguments(words))
        self.title("2 check the store")
        self.show("teach-detr", "check", self.config.store_path)

    def label_commands(self) -> list[list[object]]:
        """Arguments of `teacher-infer run`, for each time that it has to be called."""
        data = self.config.data
        inside = [split for split in self.config.label_splits if data.is_laid_out(split)]
        commands = [
            self.label_arguments(*self.one_split(split))
            for split in self.config.label_splits
            if split not in inside
        ]
        if inside:
            splits = [word for split in inside for word in ("--split", split)]
            commands.insert(0, self.label_arguments("--data", data.root, *splits))
        return commands

    def one_split(self, split: str) -> tuple[object, ...]:
        """Where the images of a split are, as options."""
        data = self.config.data
        return ("--images", data.images_of(split), "--annotations", data.annotations_of(split))

    def label_arguments(self, *images: object) -> list[object]:
        """Arguments of `teacher-infer run` for these images."""
        config = self.config
        words: list[object] = [*images, "--store", config.store_path]
        if config.store.unit_size is not None:
            words += ["--unit-size", config.store.unit_size]
        for teacher in self.teachers:
            words += ["--teacher", teacher]
        if config.cluster.local_teachers:
            words.append("--local")
        elif config.cluster.address:
            words += ["--address", config.cluster.address]
        return words

    def plan_arguments(self, words: Sequence[object]) -> list[object]:
        """Those of `teacher-infer plan`, which asks no cluster."""
        address = self.config.cluster.address
        return [word for word in words if word not in ("--local", "--address", address)]
