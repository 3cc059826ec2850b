"""Presets: the published rows, their sizes, and what may be said of them."""

from pathlib import Path

import pytest
import torch

from student_train.models import FAMILIES, build_student
from student_train.presets import all_presets, count_parameters, load_preset
from student_train.presets.markdown import presets_markdown

# backbone, epochs, queries, AP, AP with teachers: the rows of the Teach-DETR paper
ROWS = {
    "conditional-r101-dc5": ("resnet101", 50, 300, 45.0, 46.7),
    "dab-r101-dc5": ("resnet101", 50, 300, 45.8, 48.5),
    "dn-r101-dc5": ("resnet101", 50, 300, 47.3, 49.9),
    "yolos-small": ("deit_small_patch16_224", 150, 100, 35.6, 38.0),
    "vidt-swin-small": ("swin_small_patch4_window7_224", 50, 100, 47.2, 49.0),
    "deformable-swin-s": ("swin_small_patch4_window7_224", 36, 300, 50.7, 53.2),
    "deformable-tricks-swin-s": ("swin_small_patch4_window7_224", 36, 300, 53.8, 55.5),
    "h-deformable-r50": ("resnet50", 36, 300, 50.0, 51.9),
    "h-deformable-swin-s": ("swin_small_patch4_window7_224", 36, 300, 54.2, 55.8),
    "h-deformable-swin-l": ("swin_large_patch4_window7_224", 36, 300, 57.1, 58.0),
    "h-deformable-swin-l-900": ("swin_large_patch4_window7_224", 36, 900, 57.6, 58.5),
    "dino-swin-l-384": ("swin_large_patch4_window12_384", 36, 900, 57.8, 58.9),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_published_row_is_one_name(name: str):
    config, published = load_preset(name), all_presets()[name].published
    assert published is not None
    assert (
        config.model.backbone,
        config.epochs,
        config.model.n_queries,
        published.ap,
        published.ap_with_teachers,
    ) == ROWS[name]
    # teachers are on unless somebody says `--teachers none`: the row with and the row without
    assert config.teachers.names == ("all",)


# of the whole model, or of what is not its backbone, as the official implementations count them
WHOLE = {
    "yolos-small": 30_684_768,
    "yolos-tiny": 6_488_736,
    "vidt-swin-small": 60_465_061,
    "vidt-swin-tiny": 37_962_901,
    "vidt-swin-nano": 15_728_677,
}
HEADS = {
    "conditional-r101-dc5": 19_963_489,
    "dab-r101-dc5": 20_216_605,
    "dn-r101-dc5": 20_240_065,
    "deformable-r50": 24_030_361,
    "deformable-tricks-r50": 24_107_161,
    "deformable-swin-s": 20_507_801,
    "deformable-tricks-swin-s": 20_584_601,
    "h-deformable-r50": 24_491_161,
    "h-deformable-swin-s": 20_968_601,
    "h-deformable-swin-l": 23_082_137,
    "h-deformable-swin-l-900": 23_235_737,
    "dino-r50-4scale": 23_438_270,
    "dino-swin-l-384": 22_029_246,
}


@pytest.mark.parametrize("name", WHOLE)
def test_sizes_of_whole_models(name: str):
    assert count_parameters(load_preset(name)) == WHOLE[name]


@pytest.mark.parametrize("name", HEADS)
def test_sizes_without_backbones(name: str):
    with torch.device("meta"):
        student = build_student(load_preset(name).model)
    own = [p for key, p in student.named_parameters() if not key.startswith("backbone.")]
    assert sum(p.numel() for p in own) == HEADS[name]


def test_every_family_has_a_preset_for_tests_and_one_for_scenes():
    small = {"tests": set(), "a CPU and the scenes of the demo": set()}
    for name, preset in all_presets().items():
        if preset.use in small:
            config = load_preset(name)
            small[preset.use].add(config.model.family)
            assert count_parameters(config) < 4_000_000
            # nobody has published what these reach
            assert preset.published is None
    assert all(families == set(FAMILIES) for families in small.values())


def test_the_loss_reads_logits_as_the_student_means_them():
    for name in all_presets():
        config = load_preset(name)
        assert config.loss.form == config.model.classification, name


def test_the_documented_table_is_what_the_command_prints():
    page = (Path(__file__).parents[3] / "docs" / "students.md").read_text(encoding="utf-8")
    start = "<!-- student-train presets --markdown -->\n"
    table = page[page.index(start) + len(start) : page.index("\n<!-- end -->")]
    assert table == presets_markdown(), "run `student-train presets --markdown`"
