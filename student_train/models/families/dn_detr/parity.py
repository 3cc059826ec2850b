"""Parity of DN-DETR."""

from __future__ import annotations

import numpy as np
import torch

from student_train.losses import LossConfig
from student_train.models.families.conditional_detr.parity import sizes_of
from student_train.models.families.dn_detr.model import DnDetr, DnDetrConfig
from student_train.models.layers.denoising import Noise
from student_train.parity.family import FamilyParity, Settings, ending
from student_train.parity.golden import GoldenStudent
from student_train.parity.rows import Row, largest_difference, row, wrong_entries
from student_train.parity.setups import truth


def _config(settings: Settings) -> DnDetrConfig:
    official = settings["config"]
    return DnDetrConfig(
        **sizes_of(settings),
        temperature=official["pe_temperatureH"],
        dn_groups=official["scalar"],
        dn_label_noise=official["label_noise_scale"],
        dn_box_noise=official["box_noise_scale"],
    )


def _noise(golden: GoldenStudent, student: DnDetr) -> Noise:
    """The stored random numbers; official code draws new labels for the flipped entries alone, and
    one number x a coordinate, which moves by 2 x - 1.
    """
    want = golden.train or {}
    flip = torch.from_numpy(want["noise/0_rand"])
    label = torch.zeros(len(flip), dtype=torch.long)
    label[flip < student.config.dn_label_noise] = torch.from_numpy(want["noise/1_randint"])
    # in the student's dtype: 2 x - 1 rounds in float32
    shift = torch.from_numpy(want["noise/2_rand"]).to(student.anchors.weight.dtype) * 2 - 1
    return Noise(flip, label, sign=(shift > 0).long(), amount=shift.abs())


def _denoising(golden: GoldenStudent, student: DnDetr, noise: Noise) -> list[Row]:
    """Contents, boxes and mask of all queries, and the slots that hold targets."""
    want = golden.train or {}
    name = f"{golden.name}.train"
    targets, n_queries = golden.targets(), student.config.n_queries
    noisy = student.denoising(targets, n_queries, torch.float32, noise)
    assert noisy is not None
    anchors = student.anchors.weight.sigmoid().expand(len(targets), -1, -1)
    unknown = student.denoising.unknown().expand(*anchors.shape[:2], -1)
    content, boxes = noisy.before(unknown, anchors)
    content = content[..., [0, 1, 2, 3, 4, 5, 6, -1]].transpose(0, 1)
    label = largest_difference(content, want["dn/input_query_label"])
    logits = torch.logit(boxes, 1e-6).transpose(0, 1)
    box = largest_difference(logits, want["dn/input_query_bbox"])
    blocked = np.unpackbits(want["dn/attn_mask"], axis=-1, count=noisy.blocked.shape[1])
    mask = wrong_entries(noisy.blocked, blocked.astype(bool))
    images = want["dn/batch_idx"][want["dn/known_indice"]]
    wrong = wrong_entries(noisy.image_index, images)
    wrong += wrong_entries(noisy.slot_index, want["dn/map_known_indice"])
    return [
        row(name, "dn/input_query_label", label, 1e-6),
        row(name, "dn/input_query_bbox", box, 2e-3),
        row(name, "dn/attn_mask", mask, 0, "wrong entries"),
        row(name, "dn/map_known_indice", wrong, 0, "wrong entries"),
    ]


def _loss_key(stem: str, source: str, layer: str, last: int) -> str:
    return f"{'tgt_' if source == 'denoising' else ''}{stem}{ending(layer, last)}"


PARITY = FamilyParity(
    sets=("dn",),
    criteria={"criterion_dn": truth(LossConfig(denoising_background=0))},
    config=_config,
    loss=LossConfig(denoising_background=0, denoising_counts="own"),
    loss_key=_loss_key,
    noise=_noise,
    denoising=_denoising,
)
