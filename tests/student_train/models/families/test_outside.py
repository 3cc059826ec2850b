"""A family from outside the package: its record is all that has to be known of it."""

import io
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from student_train.config import resolve
from student_train.losses import LossConfig
from student_train.models import FAMILIES, Family, Prediction, Student, StudentConfig, StudentOutput
from student_train.models.official import detect_family, export_official, load_official
from student_train.presets import all_presets, load_preset
from student_train.presets.preset import Preset, for_tests
from student_train.runs.trained import load_student
from student_train.settings.origin import ARGUMENT
from student_train.settings.overrides import Layer
from student_train.training.launch import train


@dataclass(frozen=True, kw_only=True)
class ToyConfig(StudentConfig):
    """A student that looks at the mean colour."""

    family: ClassVar[str] = "toy"
    backbone: str = "none"


class Toy(Student[ToyConfig]):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = nn.Linear(3, 8)
        self.classes = nn.Linear(8, config.n_queries * config.n_classes)
        self.boxes = nn.Linear(8, config.n_queries * 4)

    def forward(
        self, images: Tensor, mask: Tensor, targets: Any = None, noise: Any = None
    ) -> StudentOutput:
        hidden = self.backbone(images.mean((2, 3))).relu()
        logits = self.classes(hidden).unflatten(1, (self.config.n_queries, -1))
        boxes = self.boxes(hidden).unflatten(1, (self.config.n_queries, 4)).sigmoid()
        return StudentOutput([Prediction(logits, boxes)])


FAMILY = Family(
    config=ToyConfig,
    student=Toy,
    package="toy_family",
    names=lambda student, key: [f"official.{key}"],
    marks=("official.classes.weight",),
    sizes={"n_classes": ("official.classes.bias", 0, 0)},
)


def toy_micro() -> Any:
    return for_tests(ToyConfig(n_queries=4, n_classes=3, top_k=4), LossConfig())


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch):
    package, presets = ModuleType("toy_family"), ModuleType("toy_family.presets")
    package.__path__ = []  # type: ignore[attr-defined]
    presets.PRESETS = (Preset("toy-micro", toy_micro, "tests"),)  # type: ignore[attr-defined]
    for module in (package, presets):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(FAMILIES, "toy", FAMILY)
    all_presets.cache_clear()
    yield
    all_presets.cache_clear()


def test_a_family_from_outside_trains_a_step_and_comes_back(toy: Path, tmp_path: Path) -> None:
    layer = Layer(ARGUMENT, {"data.root": str(toy), "teachers.names": "none", "steps": "1"})
    train(
        resolve(load_preset("toy-micro"), arguments=[layer]),
        tmp_path / "run",
        Console(file=io.StringIO()),
    )
    student = load_student(tmp_path / "run", "last")
    assert isinstance(student.model, Toy)
    assert student.config.preset == "toy-micro"


def test_its_official_files_are_told_from_all_others() -> None:
    torch.manual_seed(0)
    config = replace(ToyConfig(n_classes=3), n_queries=4)
    one, other = Toy(config), Toy(config)
    state = export_official(one)
    assert detect_family(state) == "toy"
    assert load_official(other, state).complete
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
