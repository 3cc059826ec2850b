"""A DINO of 60 000 parameters, and a padded batch for it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from student_train.models import Dino, DinoConfig, Targets

TINY = DinoConfig(
    backbone="test_efficientnet",
    norm="batch",
    n_classes=7,
    n_queries=12,
    n_levels=4,
    dim=32,
    n_heads=2,
    encoder_layers=1,
    decoder_layers=3,
    ffn_dim=32,
    dn_number=10,
    top_k=10,
)


def tiny(**changes: object) -> Dino:
    """Every parameter moved off its initial value: zeros would hide errors."""
    torch.manual_seed(0)
    student = Dino(replace(TINY, **changes))
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return student


def padded(sizes: list[tuple[int, int]], seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    height, width = (max(size[i] for size in sizes) for i in (0, 1))
    images = torch.zeros(len(sizes), 3, height, width)
    mask = torch.ones(len(sizes), height, width, dtype=torch.bool)
    for i, (h, w) in enumerate(sizes):
        images[i, :, :h, :w] = torch.randn(3, h, w, generator=generator)
        mask[i, :h, :w] = False
    return images, mask


def truth(*counts: int, n_classes: int = 7) -> list[Targets]:
    generator = torch.Generator().manual_seed(sum(counts))
    found = []
    for n in counts:
        sides = 0.1 + 0.3 * torch.rand(n, 2, generator=generator)
        centres = sides / 2 + (1 - sides) * torch.rand(n, 2, generator=generator)
        labels = torch.randint(0, n_classes, (n,), generator=generator)
        found.append(Targets.truth(labels, torch.cat((centres, sides), 1)))
    return found


class Maps(nn.Module):
    """Stands for backbone and neck: maps that are zero on padding, whatever the images are."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.maps = []
        for stride in (8, 16, 32, 64):
            own = torch.randn(1, 32, 128 // stride, 64 // stride, generator=generator)
            canvas = torch.zeros(1, 32, height // stride, width // stride)
            canvas[:, :, : own.shape[2], : own.shape[3]] = own
            self.maps.append(canvas)

    def forward(self, _: object) -> list[Tensor]:
        return self.maps


@pytest.fixture(name="tiny", scope="session")
def _tiny():
    return tiny


@pytest.fixture(name="padded", scope="session")
def _padded():
    return padded


@pytest.fixture(name="truth", scope="session")
def _truth():
    return truth


@pytest.fixture(name="tiny_config", scope="session")
def _tiny_config() -> DinoConfig:
    return TINY


@pytest.fixture(name="maps", scope="session")
def _maps():
    return Maps
