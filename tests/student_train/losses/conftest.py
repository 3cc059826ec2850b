"""Small random outputs and targets."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from student_train.losses import Criterion, LossConfig, Losses, TeacherLossConfig
from student_train.models.output import Denoising, Prediction, StudentOutput
from student_train.models.targets import Targets

IMAGES, QUERIES, CLASSES = 2, 12, 5


def random_boxes(generator: torch.Generator, *shape: int) -> torch.Tensor:
    centre = torch.rand(*shape, 2, generator=generator) * 0.6 + 0.2
    return torch.cat([centre, torch.rand(*shape, 2, generator=generator) * 0.3 + 0.05], -1)


def random_prediction(
    generator: torch.Generator, queries: int = QUERIES, classes: int = CLASSES
) -> Prediction:
    logits = torch.randn(IMAGES, queries, classes, generator=generator)
    boxes = random_boxes(generator, IMAGES, queries)
    return Prediction(logits.requires_grad_(), boxes.requires_grad_())


@pytest.fixture
def make_targets() -> Callable[..., list[Targets]]:
    """Targets of one image per count; scores 1 unless `scored`."""

    def make(*counts: int, seed: int = 1, scored: bool = False) -> list[Targets]:
        g = torch.Generator().manual_seed(seed)
        found = []
        for n in counts:
            labels = torch.randint(0, CLASSES - 1, (n,), generator=g)
            scores = torch.rand(n, generator=g) if scored else torch.ones(n)
            found.append(Targets(labels, random_boxes(g, n), scores))
        return found

    return make


@pytest.fixture
def make_output() -> Callable[..., StudentOutput]:
    """Three decoder layers, and on request proposals, one-to-many queries and denoising."""

    def make(
        seed: int = 0,
        proposals: str | None = None,
        one_to_many: bool = False,
        denoising: list[Targets] | None = None,
    ) -> StudentOutput:
        g = torch.Generator().manual_seed(seed)
        output = StudentOutput([random_prediction(g) for _ in range(3)])
        if proposals is not None:
            output.proposals = random_prediction(g, 20)
            output.proposal_labels = proposals  # type: ignore[assignment]
        if one_to_many:
            output.one_to_many = [random_prediction(g, 30) for _ in range(3)]
        if denoising is not None:
            most = max(map(len, denoising))
            pairs = [(i, j) for i, each in enumerate(denoising) for j in range(len(each))]
            index = torch.tensor(pairs, dtype=torch.long).view(-1, 2)
            layers = [random_prediction(g, 2 * most) for _ in range(3)]
            output.denoising = Denoising(
                layers, index[:, 0], index[:, 1], index[:, 1], n_groups=1, n_slots=2 * most
            )
        return output

    return make


MakeTargets = Callable[..., list[Targets]]


MakeOutput = Callable[..., StudentOutput]


def teachers_only(**options: object) -> LossConfig:
    return LossConfig(truth=0, denoising=0, teacher=TeacherLossConfig(**options))  # type: ignore[arg-type]


def run(
    config: LossConfig,
    output: StudentOutput,
    truth: list[Targets],
    teachers: dict[str, list[Targets | None]] | None = None,
    epoch: float = 0,
) -> Losses:
    criterion = Criterion(config)
    output = replace(output, classification=config.form)
    return criterion(output, criterion.supervise(truth, teachers, epoch))


def leaves(output: StudentOutput) -> list[Tensor]:
    predictions = [*output.layers, *(output.one_to_many or [])]
    if output.proposals is not None:
        predictions.append(output.proposals)
    return [tensor for p in predictions for tensor in (p.logits, p.boxes)]


def gradients(losses: Losses, output: StudentOutput) -> list[Tensor]:
    found = torch.autograd.grad(losses.total, leaves(output), allow_unused=True, retain_graph=True)
    return [
        torch.zeros_like(leaf) if g is None else g
        for g, leaf in zip(found, leaves(output), strict=True)
    ]


def same(left: list[Tensor], right: list[Tensor], factor: float = 1.0) -> None:
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b * factor, rtol=1e-5, atol=1e-6)
