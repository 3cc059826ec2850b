"""LW-DETR and RF-DETR: windows, groups of queries, sizes, files."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from student_train.config import resolve
from student_train.errors import CheckpointError, ConfigError, InputSizeError
from student_train.models import LwDetrConfig, RfDetrConfig, build_student
from student_train.models.backbones.windows import WindowedShape, WindowedViT, cut, join
from student_train.models.official import export_official
from student_train.presets import count_parameters, load_preset
from student_train.runs.importing import import_checkpoint
from student_train.training.optim import WeightAverage, parameter_groups

MICRO = ["lw-detr-micro", "rf-detr-micro"]
COUNTS = {
    "lw-detr-tiny": 12_052_002,
    "lw-detr-small": 14_557_378,
    "lw-detr-medium": 28_237_378,
    "lw-detr-large": 46_823_650,
    "lw-detr-xlarge": 118_033_378,
    "rf-detr-nano": 30_467_298,
    "rf-detr-small": 32_111_170,
    "rf-detr-medium": 33_687_458,
    "rf-detr-large": 33_933_218,
    "rf-detr-base": 32_174_530,
}


def micro(name: str) -> nn.Module:
    torch.manual_seed(0)
    student = build_student(load_preset(name).model)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return student


@pytest.mark.parametrize("preset", COUNTS)
def test_official_sizes_have_the_official_numbers_of_parameters(preset: str):
    assert count_parameters(load_preset(preset)) == COUNTS[preset]


def test_windows_are_cut_row_by_row_and_join_again():
    grid = torch.arange(2 * 4 * 6, dtype=torch.float32).view(2, 4, 6, 1)
    windows = cut(grid, 2)
    assert windows.shape == (8, 6, 1)
    # the second window of the first image: upper right
    assert windows[1, :, 0].tolist() == [3, 4, 5, 9, 10, 11]
    assert torch.equal(join(windows, 2, 4, 6), grid.permute(0, 3, 1, 2))


class _Reach(WindowedViT):
    """Blocks that tell how far they look: every token becomes the mean of what it attends to."""

    def __init__(self, shape: WindowedShape) -> None:
        super().__init__(shape, checkpointing=False)
        self.blocks = nn.ModuleList(_Mean() for _ in range(shape.depth))

    def tokens(self, images: torch.Tensor) -> torch.Tensor:
        return cut(images[:, :1].permute(0, 2, 3, 1), self.shape.windows)


class _Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(1, keepdim=True).expand_as(x)


def test_blocks_look_as_far_as_the_shape_says():
    shape = WindowedShape(1, 2, 1, 1, 2, taps=(0, 1), whole={1})
    images = torch.rand(2, 3, 4, 4)
    inside, everywhere = _Reach(shape)(images)
    quarter = images[:, :1, :2, 2:].mean((2, 3))
    torch.testing.assert_close(inside[:, :, 0, 3], quarter)
    torch.testing.assert_close(
        everywhere, images[:, :1].mean((2, 3), keepdim=True).expand(-1, -1, 4, 4)
    )


def test_rf_detr_looks_at_the_whole_image_one_block_behind_its_taps():
    shape = load_preset("rf-detr-nano").model.shape  # type: ignore[attr-defined]
    assert shape.taps == (2, 5, 8, 11)
    assert [block for block in range(12) if block in shape.whole] == [3, 6, 9]
    base = load_preset("rf-detr-base").model.shape  # type: ignore[attr-defined]
    assert base.taps == (1, 4, 7, 10)
    assert [block for block in range(11) if block in base.whole] == [2, 5, 8]


@pytest.mark.parametrize("preset", MICRO)
def test_evaluation_has_one_group_and_does_not_depend_on_the_batch(preset: str):
    student = micro(preset).eval()
    images = torch.randn(3, 3, 64, 64)
    mask = torch.zeros(3, 64, 64, dtype=torch.bool)
    with torch.no_grad():
        together = student(images, mask)
        alone = [student(images[i : i + 1], mask[i : i + 1]) for i in range(3)]
    assert together.n_groups == 1
    assert together.last.logits.shape[1] == min(20, 16)
    for i, one in enumerate(alone):
        torch.testing.assert_close(
            one.last.logits[0], together.last.logits[i], rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(one.last.boxes[0], together.last.boxes[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("preset", MICRO)
def test_groups_do_not_see_each_other(preset: str):
    """In training, with the norms of evaluation: the first group is what evaluation has."""
    student = micro(preset)
    images, mask = torch.randn(2, 3, 128, 64), torch.zeros(2, 128, 64, dtype=torch.bool)
    with torch.no_grad():
        evaluated = student.eval()(images, mask)
        student.train()
        for module in student.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        trained = student(images, mask)
    assert trained.n_groups == 3
    count = evaluated.last.logits.shape[1]
    for mine, other in zip(trained.layers, evaluated.layers, strict=True):
        assert mine.logits.shape[1] == 3 * count
        torch.testing.assert_close(mine.logits[:, :count], other.logits, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(
        trained.last.logits[:, :count], trained.last.logits[:, count : 2 * count]
    )


@pytest.mark.parametrize("preset", MICRO)
def test_tokens_on_padding_are_chosen_last(preset: str):
    student = micro(preset).eval()
    images, mask = torch.randn(1, 3, 128, 128), torch.zeros(1, 128, 128, dtype=torch.bool)
    mask[:, 96:] = mask[:, :, 96:] = True
    images = images.masked_fill(mask[:, None], 0)
    with torch.no_grad():
        chosen = student(images, mask).proposals.token_index
    rows, columns = chosen // 8, chosen % 8
    assert ((rows < 6) & (columns < 6)).all()


@pytest.mark.parametrize(("preset", "multiple"), [("lw-detr-micro", 64), ("rf-detr-micro", 32)])
def test_other_sides_are_refused_by_a_sentence(preset: str, multiple: int):
    student = micro(preset).eval()
    with pytest.raises(InputSizeError, match=rf"64 x 72 px .* multiples of {multiple}"):
        student(torch.zeros(1, 3, 64, 72), torch.zeros(1, 64, 72, dtype=torch.bool))
    base = load_preset(preset)
    with pytest.raises(ConfigError, match=rf"multiples of {multiple} for this .*, not 72"):
        resolve(replace(base, augment=replace(base.augment, eval_square=72)))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"backbone": "resnet50"}, "backbone must be cae_vit_tiny_6"),
        ({"levels": ("P5", "P3")}, "levels must be some of P3 P4 P5 in this order"),
        ({"levels": ()}, "levels must be some of"),
        ({"n_sampling_heads": 7}, "multiple of n_sampling_heads=7"),
        ({"n_groups": 0}, "n_groups must be at least 1"),
    ],
)
def test_settings_that_cannot_be(changes: dict, sentence: str):
    with pytest.raises(ConfigError, match=sentence):
        LwDetrConfig(**changes)


@pytest.mark.parametrize("stages", [(), (3, 2), (0, 1), (3, 13)])
def test_stages_that_there_are_not(stages: tuple[int, ...]):
    with pytest.raises(ConfigError, match="stages must rise from 1 to 12"):
        RfDetrConfig(stages=stages)


def test_rates_fall_with_the_depth_of_the_vit():
    """As `util/get_param_dicts.py` of the official code has them."""
    config = load_preset("lw-detr-tiny")
    with torch.device("meta"):
        student = build_student(config.model)
    of = {
        name: (group["lr"], group["weight_decay"])
        for group in parameter_groups(student, config.optim)
        for name, parameter in student.named_parameters()
        if any(parameter is each for each in group["params"])  # type: ignore[union-attr]
    }
    assert set(of) == {name for name, _ in student.named_parameters()}
    vit = 1.5e-4 * 0.7**2
    assert of["backbone.pos_embed"] == (pytest.approx(vit * 0.8**7), 0)
    assert of["backbone.patch_embed.proj.weight"] == (pytest.approx(vit * 0.8**7), 1e-4)
    assert of["backbone.blocks.0.attn.qkv.weight"] == (pytest.approx(vit * 0.8**6), 1e-4)
    assert of["backbone.blocks.5.gamma_1"] == (pytest.approx(vit * 0.8), 0)
    assert of["decoder.layers.0.linear1.bias"] == (pytest.approx(0.7e-4), 1e-4)
    assert of["projector.levels.0.0.enter.conv.weight"] == (1e-4, 1e-4)
    assert of["queries.moves.weight"] == (1e-4, 1e-4)

    config = load_preset("rf-detr-base")
    with torch.device("meta"):
        depths = build_student(config.model).depths()
    # stages are counted from 1 there, so that the last tapped block is two below the end
    assert depths["backbone.blocks.10.norm1.weight"] == 2
    assert depths["backbone.embedding.cls_token"] == 13
    assert depths["backbone.norm.weight"] == 0


def test_the_average_rises_over_its_ramp():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, 0.5, ramp=2.0)
    nn.init.ones_(model.weight)
    average.update(model)
    # decay 0.5 (1 - e^(-1/2))
    assert float(average.model.weight) == pytest.approx(1 - 0.5 * (1 - 2.718281828**-0.5))


def official(config: LwDetrConfig, path: Path, **args: object) -> None:
    torch.save({"model": export_official(build_student(config)), "args": args}, path)


SMALL = dict(decoder_layers=1, n_queries=4, n_groups=2, ffn_dim=32)


def test_class_names_beside_the_weights_become_the_categories(tmp_path: Path):
    config = replace(load_preset("rf-detr-micro").model, n_classes=3)
    official(config, tmp_path / "mine.pth", num_classes=2, class_names=["cat", "dog"])
    done = import_checkpoint(tmp_path / "mine.pth", tmp_path / "run", preset="rf-detr-micro")
    # the first logit stays unused, as in the official code
    assert done.class_space.names == ("", "cat", "dog")
    assert done.report.complete


def test_settings_beside_the_weights_tell_windows_and_stages(tmp_path: Path):
    config = RfDetrConfig(
        backbone="dinov2_small",
        n_windows=2,
        stages=(2, 4),
        table_side=6,
        patch=16,
        n_classes=91,
        **SMALL,
    )
    args = {
        "num_windows": 2,
        "out_feature_indexes": [2, 4],
        "sa_nheads": 8,
        "ca_nheads": 16,
        "dec_n_points": 2,
        "num_queries": 4,
    }
    official(config, tmp_path / "mine.pth", **args)
    done = import_checkpoint(tmp_path / "mine.pth", tmp_path / "run")
    assert (done.family, done.report.complete) == ("rf_detr", True)
    mine = done.config.model
    assert isinstance(mine, RfDetrConfig)
    assert (mine.n_windows, mine.stages, mine.patch, mine.table_side) == (2, (2, 4), 16, 6)
    assert not any(each.startswith(("model.n_windows", "model.stages")) for each in done.assumed)


@pytest.mark.parametrize(
    ("classes", "sentence"), [(366, r"366 classes \(Objects365's\)"), (7, "7 classes, and")]
)
def test_other_classes_are_named(tmp_path: Path, classes: int, sentence: str):
    config = replace(load_preset("lw-detr-micro").model, n_classes=classes)
    official(config, tmp_path / "mine.pth")
    with pytest.raises(ConfigError, match=sentence):
        import_checkpoint(tmp_path / "mine.pth", tmp_path / "run", preset="lw-detr-micro")


def test_xl_is_refused_by_its_licence(tmp_path: Path):
    for name in ("rf-detr-xlarge", "rf-detr-2xlarge", "rfdetr-2xl"):
        with pytest.raises(ConfigError, match="Platform Model License"):
            load_preset(name)
    config = RfDetrConfig(backbone="dinov2_test", stages=(1, 3), table_side=4, patch=20, **SMALL)
    official(config, tmp_path / "xl.pth")
    with pytest.raises(CheckpointError, match="Platform Model License"):
        import_checkpoint(tmp_path / "xl.pth", tmp_path / "run")
    config = replace(config, patch=16)
    official(config, tmp_path / "other.pth", license="PML-1.0")
    with pytest.raises(CheckpointError, match="Platform Model License"):
        import_checkpoint(tmp_path / "other.pth", tmp_path / "run")
