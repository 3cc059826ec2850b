"""Pre-training of the small student's backbone on scenes, in place of ImageNet weights.

A DETR that has to learn features and set prediction at once learns neither in minutes. Every map
of the backbone gets two 1 x 1 convolutions that say, for each cell, which toy it lies in and how
far that toy's sides are: FCOS (Tian et al., ICCV 2019) without its pyramid. The convolutions are
thrown away.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from box_store.coco.annotations import load_coco
from teach_detr.toy_teachers.crops import Crop, CropSampler

# ImageNet's, which the trainer normalises images with
_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
_STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]

# which objects a map is asked for: its stride, and the range of their longer side in pixels
_LEVELS = ((8, 0.0, 56.0), (16, 32.0, 112.0), (32, 72.0, math.inf))
# a cell is inside an object if its centre lies in this central part of the box
_CORE = 0.6


@dataclass(frozen=True)
class BackboneRecipe:
    """How long and how fast: `steps` of `batch_size` crops each."""

    backbone: str
    steps: int = 1500
    batch_size: int = 16
    lr: float = 3e-3
    weight_decay: float = 0.02
    warmup_steps: int = 100
    crop_px: int = 160
    zoom: tuple[float, float] = (0.6, 1.1)
    save_every: int = 250
    seed: int = 0


class DenseDetector(nn.Module):
    """A backbone with a dense head on each of its maps."""

    def __init__(self, backbone: str, n_classes: int) -> None:
        super().__init__()
        body: Any = timm.create_model(
            backbone, features_only=True, pretrained=False, out_indices=(2, 3, 4)
        )
        self.body = body
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, 64, 1), nn.ReLU(), nn.Conv2d(64, n_classes + 4, 1))
            for channels in body.feature_info.channels()
        )
        for head in self.heads:
            # the prior of focal loss: at the start every cell says background
            nn.init.constant_(head[-1].bias[:n_classes], -math.log(99.0))  # type: ignore[index]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] to class logits and log distances of each level, [B, C + 4, h, w]."""
        return [head(x) for head, x in zip(self.heads, self.body(images), strict=True)]


def train_backbone(
    images: Path, annotations: Path, state: Path, recipe: BackboneRecipe, say: Callable[[str], None]
) -> dict[str, Tensor]:
    """Train the backbone; returns its weights under timm's names.

    `state` is written every `recipe.save_every` steps, and training goes on from it when it exists.
    """
    torch.manual_seed(recipe.seed)
    coco = load_coco(annotations)
    sampler = CropSampler(images, coco, recipe.crop_px, recipe.zoom)
    model = DenseDetector(recipe.backbone, len(coco.categories.items))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay
    )
    step = 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step = int(saved["step"])
    started, first = time.monotonic(), step
    model.train()
    while step < recipe.steps:
        crops = sampler.batch(recipe.batch_size, np.random.default_rng([recipe.seed, step]))
        warm = min(1.0, (step + 1) / recipe.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * warm * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        class_loss, box_loss = dense_loss(model, crops, recipe.crop_px)
        optimizer.zero_grad()
        (class_loss + box_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        step += 1
        if step % 50 == 0 or step == recipe.steps:
            speed = (step - first) * recipe.batch_size / (time.monotonic() - started)
            say(
                f"backbone step {step}/{recipe.steps} class {float(class_loss.detach()):.3f} "
                f"box {float(box_loss.detach()):.3f} {speed:.1f} images/s"
            )
        if step % recipe.save_every == 0 or step == recipe.steps:
            part = state.with_suffix(".part")
            torch.save(
                {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()},
                part,
            )
            part.replace(state)
    return {k: v.detach().clone() for k, v in model.body.state_dict().items()}


def dense_loss(model: DenseDetector, crops: list[Crop], side_px: int) -> tuple[Tensor, Tensor]:
    """Focal loss and generalised IoU loss of a batch, each over the number of positive cells."""
    batch = torch.zeros(len(crops), 3, side_px, side_px)
    for image, crop in zip(batch, crops, strict=True):
        height, width = crop.pixels.shape[1:]
        image[:, :height, :width] = (crop.pixels / 255 - _MEAN) / _STD
    logits: list[Tensor] = []
    targets: list[Tensor] = []
    predicted: list[Tensor] = []
    wanted: list[Tensor] = []
    for output, (stride, low, high) in zip(model(batch), _LEVELS, strict=True):
        n_classes = output.shape[1] - 4
        rows = output.permute(0, 2, 3, 1)
        centres = _centres(output.shape[2], output.shape[3], stride)
        for cells, crop in zip(rows, crops, strict=True):
            label, box = assign(centres, crop, low, high)
            inside = label >= 0
            logits.append(cells[..., :n_classes].reshape(-1, n_classes))
            target = torch.zeros(len(centres), n_classes)
            target[inside, label[inside]] = 1
            targets.append(target)
            distance = cells[..., n_classes:].reshape(-1, 4)[inside].clamp(max=5).exp() * stride
            here = centres[inside]
            predicted.append(torch.cat([here - distance[:, :2], here + distance[:, 2:]], 1))
            wanted.append(box[inside])
    boxes = torch.cat(wanted)
    n = max(1, len(boxes))
    class_loss = sigmoid_focal_loss(torch.cat(logits), torch.cat(targets), reduction="sum") / n
    return class_loss, generalized_box_iou_loss(torch.cat(predicted), boxes, reduction="sum") / n


def _centres(height: int, width: int, stride: int) -> Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride


def assign(centres: Tensor, crop: Crop, low: float, high: float) -> tuple[Tensor, Tensor]:
    """For each cell centre [N, 2], the label of the smallest object whose core it lies in (-1 where
    there is none) and that object's box [N, 4]; only objects with a longer side in [low, high) px.
    """
    label = torch.full((len(centres),), -1)
    box = torch.zeros(len(centres), 4)
    size = crop.boxes_xyxy[:, 2:] - crop.boxes_xyxy[:, :2]
    # the smallest last, so that it wins
    for i in size.prod(1).argsort(descending=True).tolist():
        if not low <= float(size[i].max()) < high:
            continue
        middle = (crop.boxes_xyxy[i, :2] + crop.boxes_xyxy[i, 2:]) / 2
        inside = ((centres - middle).abs() < _CORE / 2 * size[i]).all(1)
        label[inside] = crop.labels[i]
        box[inside] = crop.boxes_xyxy[i]
    return label, box
