"""What golden sets of RT-DETR and D-FINE have in common: their loss, keys and denoising queries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from student_train.losses import LossConfig, MatchCost
from student_train.models.hybrid import HybridStudent
from student_train.models.layers.denoising import Noise
from student_train.parity.case import Case, Setup
from student_train.parity.family import Settings
from student_train.parity.golden import GoldenStudent
from student_train.parity.rows import Row, largest_difference, row, wrong_entries
from student_train.parity.setups import of_truth

HYBRID_MODULES = {"decoder.enc_output": "queries.norm", "encoder.encoder.0": "encoder.layers.0"}
"""see `FamilyParity.modules`"""


def hybrid_loss(settings: Settings) -> LossConfig:
    """The loss as a set describes it."""
    said = settings["loss"]
    kind, matcher, weights = said["class"], said["matcher"], said["weight_dict"]
    match = MatchCost(
        matcher["cost_class"],
        matcher["cost_bbox"],
        matcher["cost_giou"],
        matcher["alpha"],
        matcher["gamma"],
    )
    known: dict[str, Any] = {
        "classification": kind,
        "class_loss": weights[f"loss_{kind}"],
        "l1_loss": weights["loss_bbox"],
        "giou_loss": weights["loss_giou"],
        "match": match,
        "giou_eps": 0,
    }
    if kind == "focal":
        return LossConfig(focal_alpha=said["alpha"], focal_gamma=said["gamma"], **known)
    alpha = said.get("mal_alpha") if kind == "mal" else said["alpha"]
    return LossConfig(quality_alpha=alpha, quality_gamma=said["gamma"], **known)


def hybrid_key(stem: str, source: str, layer: str, last: int) -> str:
    """`loss_vfl`, `_aux_0`, `_enc_0`, `_dn_0`: the last layer alone has no number."""
    if layer == "proposals":
        return f"{stem}_enc_0"
    if source == "denoising":
        return f"{stem}_dn_{layer}"
    return stem if int(layer) == last else f"{stem}_aux_{layer}"


def hybrid_evaluation(golden: GoldenStudent, student: HybridStudent) -> list[Row]:
    """The scores that tokens are chosen by."""
    found: list[Tensor] = []
    with torch.no_grad():
        handle = student.queries.classes.register_forward_hook(
            lambda _module, _inputs, output: found.append(output.amax(-1))
        )
        student(*golden.batch())
        handle.remove()
    error = largest_difference(found[0], golden.outputs["enc/max_logit"])
    return [row(golden.name, "enc/max_logit", error, 1e-3)]


def hybrid_noise(golden: GoldenStudent, student: HybridStudent) -> Noise | None:
    """The stored random numbers, one for every slot."""
    want = golden.train or {}
    if "noise/0_uniform" not in want:
        return None
    # in the student's dtype: negatives' amount + 1 rounds in float32
    dtype = student.denoising.label_embedding.weight.dtype
    return Noise(
        torch.from_numpy(want["noise/0_uniform"]),
        torch.from_numpy(want["noise/1_integers"]).long(),
        torch.from_numpy(want["noise/2_integers"]).long(),
        torch.from_numpy(want["noise/3_uniform"]).to(dtype),
    )


def hybrid_denoising(
    golden: GoldenStudent, student: HybridStudent, noise: Noise | None
) -> list[Row]:
    """The denoising queries, who must not see whom, and which slots have a box to restore."""
    want = golden.train or {}
    name = f"{golden.name}.train"
    if noise is None:
        return []
    noisy = student.denoising(golden.targets(), student.queries.n_queries, torch.float32, noise)
    assert noisy is not None
    content = noisy.content[..., [0, 1, 2, 3, 4, 5, 6, -1]]
    label = largest_difference(content, want["dn/input_query_label"])
    boxes = torch.from_numpy(want["dn/input_query_bbox"]).sigmoid()
    box = largest_difference(noisy.boxes, boxes.numpy())
    blocked = np.unpackbits(want["dn/attn_mask"], axis=-1, count=noisy.blocked.shape[1])
    mask = wrong_entries(noisy.blocked, blocked.astype(bool))
    wrong = 0.0
    for image in range(len(golden.targets())):
        mine = noisy.slot_index[noisy.image_index == image].sort().values
        wrong += wrong_entries(mine, np.sort(want[f"dn/positive/{image}"]))
    return [
        row(name, "dn/input_query_label", label, 1e-6),
        row(name, "dn/input_query_bbox", box, 1e-6, "after the sigmoid"),
        row(name, "dn/attn_mask", mask, 0, "wrong entries"),
        row(name, "dn/positive", wrong, 0, "wrong entries"),
    ]


def hybrid_criterion(case: Case) -> Setup:
    """Ground truth on all layers and the selected proposals, and denoising."""
    setup = of_truth(case, hybrid_loss(case.settings))
    last = len(setup.output.layers) - 1
    keys = {
        source: {layer: hybrid_key("{}", source, layer, last) for layer in layers}
        for source, layers in setup.keys.items()
    }
    return replace(setup, keys=keys)
