"""The folder of one run: what lies where, and what `config.json` says.

::

    RUN/
      config.json               resolved configuration with origins, categories, command, versions,
                                revision of the sources, hashes of annotations, teacher boxes and
                                initial weights, teachers with their licences
      metrics.jsonl             losses and evaluations, one JSON object a line
      checkpoints/step-*.pt     states to resume from, the last few; states.json lists them
      checkpoints/best.safetensors   weights of the best evaluation so far, self-contained
      results/*.json            detections as COCO results, and metrics
      predictions/              pictures drawn by `student-train predict`
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from box_store.categories import Categories, ClassSpace
from box_store.places.files import alone_in, replacing
from box_store.places.locations import Location, RemotePath, as_typed
from box_store.selection.choosing import Choice
from student_train.config import TrainConfig
from student_train.errors import RunError
from student_train.runs.provenance import source_revision, versions
from student_train.runs.recorded import from_json, read_json, to_json
from student_train.runs.states import P, SavedStates, StateFolder
from student_train.settings.origin import Origin
from student_train.settings.overrides import Resolved, as_text, settings

# how long a trainer that is told to stop may take to save its state
PATIENCE_S = 30.0


@dataclass(frozen=True)
class RunRecord:
    """The content of `config.json`."""

    resolved: Resolved[TrainConfig]
    class_space: ClassSpace
    versions: dict[str, str]
    fingerprints: dict[str, str]
    """hashes of the annotations, the teacher boxes and the weights it started from"""
    teachers: dict[str, str]
    """name -> licence; runs of older versions do not say"""

    @property
    def config(self) -> TrainConfig:
        """The configuration without its origins."""
        return self.resolved.config

    @property
    def origins(self) -> dict[str, Origin]:
        """Where each of its values came from."""
        return self.resolved.origins


class SavedRun(Generic[P]):
    """What a run folder holds, to be read, at a path or a URL."""

    def __init__(self, root: P) -> None:
        self.root = root
        self.config_file = root / "config.json"
        self.metrics = root / "metrics.jsonl"
        self.checkpoints = root / "checkpoints"
        self.best = self.checkpoints / "best.safetensors"
        self.results = root / "results"
        self.predictions = root / "predictions"

    def has_state(self) -> bool:
        """Whether there is something to resume."""
        return SavedStates(self.checkpoints).exists()

    def is_used(self) -> bool:
        """Whether a run was started here before."""
        return self.config_file.exists() or self.has_state()

    def read(self) -> RunRecord:
        """Read `config.json`.

        Raises:
            RunError: this is no run folder, or the file was written by something else.
        """
        if not self.config_file.exists():
            what = "has no config.json" if self.root.is_dir() else "does not exist"
            raise RunError(f"{self.root} is not a run folder: it {what}")
        content = read_json(self.config_file)
        return RunRecord(
            resolved=from_json(content, self.config_file),
            class_space=class_space_from_plain(content["classes"]),
            versions=dict(content["versions"]),
            fingerprints=dict(content.get("fingerprints", {})),
            teachers=dict(content.get("teachers", {})),
        )


class RunFolder(SavedRun[Path]):
    """The folder, on this machine, of a run at work.

    place: what people call it, where it is the working copy of a run at a URL. publish: has what is
    new copied there, and returns sentences that people should see.
    """

    def __init__(
        self,
        root: Path,
        place: RemotePath | None = None,
        publish: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        super().__init__(root)
        self.place: Location = place or root
        self.publish = publish

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other trainers out, for as long as this one is at work.

        One that was just told to stop has time to save its state.

        Raises UsageError: another process trains here.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with alone_in(self.root, PATIENCE_S):
            yield

    def clear(self) -> None:
        """Forget a former run's configuration, metrics and checkpoints; the rest stays."""
        for path in (self.config_file, self.metrics, self.best):
            path.unlink(missing_ok=True)
        StateFolder(self.checkpoints).clear()

    def write(
        self,
        resolved: Resolved[TrainConfig],
        class_space: ClassSpace,
        command: Sequence[str],
        fingerprints: Mapping[str, str],
        choices: Sequence[Choice] = (),
        licences: Mapping[str, str] | None = None,
    ) -> None:
        """Write `config.json`. choices: what was chosen for the teachers, and why; licences: those
        of the teachers, as their boxes say.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        content = {
            **to_json(resolved),
            "classes": class_space_to_plain(class_space),
            "command": list(command),
            "versions": versions(),
            "source": source_revision(),
            "fingerprints": dict(fingerprints),
            "choices": [choice.to_json() for choice in choices],
            "teachers": dict(licences or {}),
        }
        with replacing(self.config_file) as file:
            file.write((json.dumps(content, indent=2) + "\n").encode())


def beside(run: Path | RemotePath, name: str) -> Location:
    """A folder inside a run folder, or beside a weights file."""
    place = as_typed(run)
    return (place if place.is_dir() else place.parent) / name


def class_space_to_plain(space: ClassSpace) -> dict[str, Any]:
    """JSON-able form of a class space."""
    return {"kind": space.kind, "categories": space.categories.to_json()}


def class_space_from_plain(table: Mapping[str, Any]) -> ClassSpace:
    """The inverse of `class_space_to_plain`."""
    return ClassSpace(table["kind"], Categories.from_coco(table["categories"]))


def changed_settings(
    before: TrainConfig, now: TrainConfig, *, all_of_them: bool = False
) -> list[str]:
    """Settings that differ, each as `key: old -> new`; of a resumed run, those that would change
    what it computes.
    """
    old, new = settings(before), settings(now)
    return [
        f"{key}: {as_text(old[key].value)} -> {as_text(setting.value)}"
        for key, setting in new.items()
        if key in old
        and (all_of_them or not setting.is_operational)
        and old[key].value != setting.value
    ]
