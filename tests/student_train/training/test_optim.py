"""Parameter groups, the learning rate by step, the weight average."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from student_train.config import OptimConfig
from student_train.models import Student, StudentOutput, build_student
from student_train.presets import load_preset
from student_train.training.optim import (
    WeightAverage,
    clip_gradients,
    lr_factor,
    make_optimizer,
    parameter_groups,
    set_lr,
    train_what_moves,
)


class Toy(Student):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.backbone.bias.requires_grad_(False)
        self.attention = nn.ModuleDict({"sampling_offsets": nn.Linear(2, 2)})
        self.head = nn.Linear(2, 2)

    def forward(self, *_: object) -> StudentOutput:
        raise AssertionError("only its parameters are looked at")


def sizes(config: OptimConfig) -> dict[str, tuple[int, float]]:
    groups = parameter_groups(Toy(), config)
    return {g["name"]: (len(g["params"]), g["lr"]) for g in groups}  # type: ignore[arg-type]


def test_the_backbone_learns_at_its_own_rate_and_frozen_parameters_do_not():
    assert sizes(OptimConfig(lr=1e-4, backbone_lr=1e-5)) == {
        "head": (4, 1e-4),
        "backbone": (1, 1e-5),
    }


def test_offsets_can_learn_more_slowly():
    groups = sizes(OptimConfig(lr=1e-4, backbone_lr=1e-5, offsets_lr_factor=0.1))
    assert groups["head"] == (2, 1e-4)
    assert groups["offsets"] == (2, pytest.approx(1e-5))


def test_a_backbone_rate_of_zero_freezes_it():
    model = Toy()
    names = [group["name"] for group in parameter_groups(model, OptimConfig(backbone_lr=0))]
    assert names == ["head"]
    assert not any(p.requires_grad for p in model.backbone.parameters())


def test_steps_drop_after_whole_and_fractional_epochs():
    config = OptimConfig(drop_epochs=(2, 3.5), drop_factor=0.1)
    factors = [lr_factor(config, step, 10, 50) for step in (0, 19, 20, 34, 35, 49)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_warm_up_rises_to_the_full_rate():
    config = OptimConfig(schedule="constant", warmup_steps=4)
    factors = [lr_factor(config, step, 10, 50) for step in range(6)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_the_cosine_ends_at_the_lowest_rate():
    config = OptimConfig(lr=1e-2, schedule="cosine", min_lr=1e-3)
    assert lr_factor(config, 0, 10, 100) == pytest.approx(1)
    assert lr_factor(config, 50, 10, 100) == pytest.approx(0.55)
    assert lr_factor(config, 100, 10, 100) == pytest.approx(0.1)


def test_a_flat_cosine_falls_between_its_epochs_alone():
    config = OptimConfig(
        lr=1e-3, schedule="flat_cosine", flat_epochs=4, cosine_epochs=8, min_lr=5e-4
    )
    factors = [lr_factor(config, step, 10, 100) for step in range(101)]
    assert factors[:41] == [1.0] * 41
    assert factors[60] == pytest.approx(0.75)
    assert factors[80:] == pytest.approx([0.5] * 21)
    assert all(a >= b for a, b in itertools.pairwise(factors))


def test_rates_are_set_from_the_base():
    optimizer = make_optimizer(Toy(), OptimConfig(lr=1e-4, backbone_lr=1e-5), torch.device("cpu"))
    set_lr(optimizer, 0.1)
    assert set_lr(optimizer, 0.5) == pytest.approx({"head": 5e-5, "backbone": 5e-6})


def test_clipping_returns_the_norm_before():
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    assert clip_gradients([weight], 0.0).item() == pytest.approx(5)
    assert clip_gradients([weight], 0.1).item() == pytest.approx(5)
    assert weight.grad.norm().item() == pytest.approx(0.1, rel=1e-4)


def test_the_average_follows_the_weights_and_comes_back():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, decay=0.5)
    nn.init.ones_(model.weight)
    average.update(model)
    # the first decay is min(0.5, 1 / 10)
    assert average.model.weight.item() == pytest.approx(0.9)
    restored = WeightAverage(model, decay=0.5)
    restored.load_state_dict(average.state_dict())
    average.update(model)
    restored.update(model)
    assert torch.equal(average.model.weight, restored.model.weight)
    assert not average.model.weight.requires_grad


def test_statistics_are_copied_not_averaged():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = WeightAverage(model, decay=0.998)
    for _ in range(3):
        model(torch.randn(8, 2) + 5)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 1
        average.update(model)
    for mine, theirs in zip(average.model.buffers(), model.buffers(), strict=True):
        assert torch.equal(mine, theirs)
    # from a random start, the average of a short run is near its weights and not near the start
    assert (average.model[0].weight - model[0].weight).abs().max() < 1
    assert not average.model.training


def test_a_student_can_exempt_parameters_from_weight_decay():
    class Exempting(Toy):
        def no_weight_decay(self) -> set[str]:
            return {"head.bias"}

    groups = parameter_groups(Exempting(), OptimConfig(lr=1e-4, weight_decay=0.01))
    decays = {g["name"]: (g["weight_decay"], len(g["params"])) for g in groups}  # type: ignore[arg-type]
    assert decays == {"head": (0.01, 3), "backbone": (0.01, 1), "head_no_decay": (0.0, 1)}


def test_official_names_say_what_is_not_decayed() -> None:
    config = load_preset("rtdetrv2-micro")
    student = build_student(config.model)
    optim = replace(config.optim, no_decay=(r"^(?=.*(?:encoder|decoder))(?=.*(?:norm|bn)).*$",))
    named = {id(p): name for name, p in student.named_parameters()}
    groups = {
        str(g["name"]): {named[id(p)] for p in g["params"]}  # type: ignore[attr-defined]
        for g in parameter_groups(student, optim)
    }
    assert set(groups) == {"head", "head_no_decay", "backbone"}
    # ours are called otherwise: `decoder.enc_output.norm` is the norm of the queries
    assert {"encoder.layers.0.norm.weight", "queries.norm.bias"} <= groups["head_no_decay"]
    assert "neck.0.norm.weight" in groups["head_no_decay"]
    assert "encoder.layers.0.feed_forward.linear1.weight" in groups["head"]


def test_nothing_of_a_frozen_backbone_moves():
    config = load_preset("dino-micro").model
    model = build_student(replace(config, norm="batch", backbone_weights=None))
    make_optimizer(model, OptimConfig(backbone_lr=0), torch.device("cpu"))
    train_what_moves(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images, mask = torch.rand(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.bool)
    model(images, mask)
    after = model.state_dict()
    assert [key for key in before if not torch.equal(before[key], after[key])] == []
    assert model.training
    assert model.get_submodule("decoder").training
    # what is trained again learns statistics again
    model.requires_grad_(True)
    train_what_moves(model)
    model(images, mask)
    assert any(
        "running_mean" in k and not torch.equal(before[k], v) for k, v in model.state_dict().items()
    )
