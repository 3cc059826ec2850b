"""Small random outputs and targets."""

from collections.abc import Callable

import pytest
import torch

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
