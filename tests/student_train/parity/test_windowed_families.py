"""LW-DETR and RF-DETR against official numbers, and against transformers."""

from pathlib import Path

import pytest
import torch

from student_train.models import LwDetrConfig, RfDetrConfig, build_student
from student_train.models.official import detect_family, export_official
from student_train.parity import family_parity, run_parity
from student_train.parity.golden import GoldenStudent
from student_train.parity.rows import Row
from student_train.parity.students import build, check_evaluation, check_training

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
SHARED = Path(__file__).resolve().parents[4] / "shared" / "golden2"


def failed(rows: list[Row]) -> list[Row]:
    return [row for row in rows if not row.passed]


@pytest.mark.parametrize(
    ("name", "calls"), [("lwdetr_tiny", 4), ("rfdetr_nano", 3), ("rfdetr_nano_padded", 0)]
)
def test_the_official_code_is_equalled(name: str, calls: int) -> None:
    golden, family = GoldenStudent.open(GOLDEN, name), family_parity(name)
    assert family is not None
    student = build(golden, family)
    assert detect_family(export_official(student)) == student.config.family  # type: ignore[union-attr]
    assert sum(p.numel() for p in student.parameters()) == golden.settings["parameters"]

    rows = check_evaluation(golden, family, student)
    assert failed(rows) == []
    stored = {key for key in golden.outputs if not key.startswith("float64/")}
    assert stored == {row.output for row in rows}
    if not calls:
        return
    rows = check_training(golden, family, student)
    assert failed(rows) == []
    compared = {row.output for row in rows}
    assert {f"match/{call}" for call in range(calls)} <= compared
    assert {"losses/loss_ce_enc", "losses/total", "out/interm/boxes", "grad_norm"} <= compared


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lwdetr_tiny", "rfdetr_nano", "rfdetr_nano_padded"])
def test_float64_agrees_more_closely(name: str) -> None:
    rows = [row for row in run_parity(GOLDEN, [name]) if row.output.startswith("float64/")]
    assert failed(rows) == []
    assert len(rows) == (2 if name.endswith("padded") else 5)


def test_the_criterion_alone_equals_the_official_one() -> None:
    if not (SHARED / "criterion_iabce.npz").exists():
        pytest.skip(f"no golden numbers at {SHARED}")
    rows = run_parity(SHARED, ["criterion_iabce"])
    assert failed(rows) == []
    assert {"none_at_all4/losses/total", "evaluation3/matching"} <= {row.output for row in rows}


def _moved(student: torch.nn.Module) -> torch.nn.Module:
    """Every parameter and statistic off its start."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in student.state_dict().items():
            if value.is_floating_point():
                value += 0.05 * torch.randn(value.shape, generator=generator)
            if name.endswith("running_var"):
                value.abs_().add_(0.5)
    return student.eval()


def _compare(theirs: torch.nn.Module, ours: torch.nn.Module, side: int) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, side, side, generator=generator, dtype=torch.float64)
    mask = torch.zeros(2, side, side, dtype=torch.bool)
    mask[1, :, side // 2 :] = True
    images[mask[:, None].expand_as(images)] = 0
    with torch.no_grad():
        want = theirs.double()(images, pixel_mask=(~mask).long())
        got = ours.double()(images, mask).last
    assert want.logits.abs().max() > 0.1
    torch.testing.assert_close(got.logits, want.logits, rtol=0, atol=2e-6)
    torch.testing.assert_close(got.boxes, want.pred_boxes, rtol=0, atol=1e-6)


@pytest.mark.parametrize("levels", [("P4",), ("P3", "P5")])
def test_lw_detr_equals_that_of_transformers(levels: tuple[str, ...]) -> None:
    transformers = pytest.importorskip("transformers")
    config = LwDetrConfig(
        backbone="cae_vit_test_2",
        dim=64,
        n_heads=4,
        n_sampling_heads=8,
        ffn_dim=96,
        decoder_layers=2,
        n_queries=7,
        n_groups=2,
        n_classes=5,
        levels=levels,
        attention_backend="torch",
    )
    ours = _moved(build_student(config))
    vit = transformers.LwDetrViTConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=256,
        window_block_indices=[0],
        out_indices=[1, 2],
    )
    theirs = transformers.LwDetrForObjectDetection(
        transformers.LwDetrConfig(
            backbone_config=vit,
            projector_scale_factors=[{"P3": 2.0, "P4": 1.0, "P5": 0.5}[level] for level in levels],
            d_model=64,
            decoder_ffn_dim=96,
            decoder_n_points=2,
            decoder_layers=2,
            decoder_self_attention_heads=4,
            decoder_cross_attention_heads=8,
            num_queries=7,
            group_detr=2,
            num_labels=5,
        )
    ).eval()
    state = _as_transformers(export_official(ours))
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert [key for key in missing if not key.endswith("num_batches_tracked")] == []
    assert unexpected == []
    _compare(theirs, ours, 128)


# official LW-DETR -> transformers in memory, one after the other
_RENAMES = (
    ("backbone.0.encoder.pos_embed", "model.backbone.backbone.embeddings.position_embeddings"),
    ("backbone.0.encoder.patch_embed.proj.", "model.backbone.backbone.embeddings.projection."),
    ("backbone.0.encoder.blocks.", "model.backbone.backbone.encoder.layer."),
    (".attn.proj.", ".attention.o_proj."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    ("backbone.0.projector.stages_sampling.", "model.backbone.projector.scale_layers."),
    ("backbone.0.projector.stages.", "model.backbone.projector.scale_layers."),
    ("transformer.decoder.ref_point_head.", "model.decoder.ref_point_head."),
    ("transformer.decoder.norm.", "model.decoder.layernorm."),
    ("transformer.decoder.", "model.decoder."),
    ("transformer.", "model."),
    ("refpoint_embed", "model.reference_point_embed"),
    ("query_feat", "model.query_feat"),
)


def _as_transformers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        name, decoder = key, key.startswith("transformer.decoder.layers.")
        if decoder:
            for old, new in (
                (".norm1.", ".self_attn_layer_norm."),
                (".norm2.", ".cross_attn_layer_norm."),
                (".norm3.", ".layer_norm."),
                (".linear", ".mlp.fc"),
                (".out_proj.", ".o_proj."),
            ):
                name = name.replace(old, new)
        else:
            name = name.replace(".mlp.fc", ".intermediate.fc")
        sampling = "stages_sampling" in name
        for old, new in _RENAMES:
            name = name.replace(old, new)
        if "scale_layers" in name:
            name = _projector(name, sampling)
        if name.endswith((".qkv.weight", ".in_proj_weight", ".in_proj_bias")):
            stem, kind = name.replace("in_proj_", "in_proj.").rsplit(".", 1)
            stem = stem.removesuffix(".in_proj").removesuffix(".attn.qkv")
            stem += "" if decoder else ".attention"
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                found[f"{stem}.{part}_proj.{kind}"] = rows
        elif name.endswith((".q_bias", ".v_bias")):
            stem = name.replace(".attn.", ".attention.").removesuffix("_bias")
            found[f"{stem}_proj.bias"] = value
        else:
            found[name] = value
    return found


def _projector(name: str, sampling: bool) -> str:
    head, rest = name.split("scale_layers.")
    level, rest = rest.split(".", 1)
    if sampling:
        tap, rest = rest.split(".", 1)
        rest = f"sampling_layers.{tap}.layers.{rest}"
    elif rest.startswith("1."):
        rest = f"layer_norm.{rest[2:]}"
    else:
        rest = f"projector_layer.{rest[2:]}"
        rest = rest.replace(".m.", ".bottlenecks.").replace("cv", "conv")
    return f"{head}scale_layers.{level}.{rest.replace('.bn.', '.norm.')}"


@pytest.mark.parametrize(("patch", "windows"), [(16, 2), (14, 3)])
def test_rf_detr_equals_that_of_transformers(patch: int, windows: int) -> None:
    transformers = pytest.importorskip("transformers")
    config = RfDetrConfig(
        backbone="dinov2_test",
        patch=patch,
        n_windows=windows,
        stages=(1, 3),
        table_side=4,
        dim=64,
        n_heads=4,
        n_sampling_heads=8,
        ffn_dim=96,
        decoder_layers=2,
        n_queries=7,
        n_groups=2,
        n_classes=5,
        attention_backend="torch",
    )
    ours = _moved(build_student(config))
    vit = transformers.RfDetrDinov2Config(
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=4 * patch,
        patch_size=patch,
        num_windows=windows,
        out_indices=[1, 3],
    )
    theirs = transformers.RfDetrForObjectDetection.from_pretrained(
        None,
        config=transformers.RfDetrConfig(
            backbone_config=vit,
            d_model=64,
            decoder_ffn_dim=96,
            decoder_n_points=2,
            decoder_layers=2,
            decoder_self_attention_heads=4,
            decoder_cross_attention_heads=8,
            num_queries=7,
            group_detr=2,
            num_labels=5,
            # its default is 1e-5, the official value of every norm of the projector this
            layer_norm_eps=1e-6,
        ),
        state_dict=export_official(ours),
    ).eval()
    _compare(theirs, ours, 2 * patch * windows)
