"""Parity of DINO."""

from __future__ import annotations

import numpy as np
import torch

from student_train.losses import LossConfig
from student_train.models import StudentOutput
from student_train.models.families.dino.model import Dino, DinoConfig
from student_train.models.layers.denoising import Noise
from student_train.models.layers.position import inverse_sigmoid
from student_train.models.layers.queries import Proposals
from student_train.parity.backbones import BACKBONES
from student_train.parity.case import Case, Setup
from student_train.parity.family import (
    BOXES,
    Arrays,
    FamilyParity,
    Settings,
    compare_prediction,
    ending,
)
from student_train.parity.golden import GoldenStudent
from student_train.parity.rows import Row, largest_difference, row, wrong_entries
from student_train.parity.setups import of_truth


def _config(settings: Settings) -> DinoConfig:
    official = settings["config"]
    return DinoConfig(
        backbone=BACKBONES[official["backbone"]],
        strides=tuple(4 * 2**stage for stage in official["return_interm_indices"]),
        n_classes=official["num_classes"],
        n_queries=official["num_queries"],
        n_levels=official["num_feature_levels"],
        temperature=official["pe_temperatureH"],
        share_heads=official["dec_pred_bbox_embed_share"],
        dn_number=official["dn_number"],
        dn_label_noise=official["dn_label_noise_ratio"],
        dn_box_noise=official["dn_box_noise_scale"],
        attention_backend="torch",
    )


def _proposals(name: str, prefix: str, output: StudentOutput, want: Arrays) -> list[Row]:
    proposals = output.proposals
    assert isinstance(proposals, Proposals)
    rows = compare_prediction(name, f"{prefix}interm/", proposals, want)
    anchors = largest_difference(proposals.anchors, want[f"{prefix}init/boxes"])
    rows.append(row(name, f"{prefix}init/boxes", anchors, BOXES))
    wrong = wrong_entries(proposals.token_index, want["topk_index"])
    return [*rows, row(name, "topk_index", wrong, 0, "wrong entries")]


def _noise(golden: GoldenStudent, student: Dino) -> Noise:
    """The stored random numbers; official code draws new labels for the flipped entries alone."""
    want = golden.train or {}
    flip = torch.from_numpy(want["noise/0_rand"])
    label = torch.zeros(len(flip), dtype=torch.long)
    flipped = flip < student.config.dn_label_noise * 0.5
    label[flipped] = torch.from_numpy(want["noise/1_randint"])
    sign = torch.from_numpy(want["noise/2_randint"])
    # in the student's dtype: negatives' amount + 1 rounds in float32
    dtype = student.denoising.label_embedding.weight.dtype
    return Noise(flip, label, sign, torch.from_numpy(want["noise/3_rand"]).to(dtype))


def _denoising(golden: GoldenStudent, student: Dino, noise: Noise) -> list[Row]:
    want = golden.train or {}
    name = f"{golden.name}.train"
    n_queries = student.config.n_queries
    noisy = student.denoising(golden.targets(), n_queries, torch.float32, noise)
    assert noisy is not None
    content = noisy.content[..., [0, 1, 2, 3, 4, 5, 6, -1]]
    logits = inverse_sigmoid(noisy.boxes)
    blocked = np.unpackbits(want["dn/attn_mask"], axis=-1, count=noisy.blocked.shape[1])
    label = largest_difference(content, want["dn/input_query_label"])
    # a box at the border comes back from the logit's clamp 1e-3 away
    box = largest_difference(logits, want["dn/input_query_bbox"])
    mask = wrong_entries(noisy.blocked, blocked.astype(bool))
    return [
        row(name, "dn/input_query_label", label, 1e-6),
        row(name, "dn/input_query_bbox", box, 2e-3),
        row(name, "dn/attn_mask", mask, 0, "wrong entries"),
    ]


def _loss_key(stem: str, source: str, layer: str, last: int) -> str:
    if layer == "proposals":
        return f"{stem}_interm"
    return f"{stem}{'_dn' if source == 'denoising' else ''}{ending(layer, last)}"


def _criterion(case: Case) -> Setup:
    """Ground truth on all layers and the selected proposals, and denoising."""
    return of_truth(case, LossConfig(), denoising="{}_dn{}")


PARITY = FamilyParity(
    sets=("dino",),
    criteria={"criterion_dino": _criterion},
    config=_config,
    loss=LossConfig(),
    loss_key=_loss_key,
    noise=_noise,
    denoising=_denoising,
    proposals=_proposals,
)
