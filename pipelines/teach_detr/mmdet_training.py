"""A short training loop for an mmdet detector: `model.loss()`, AdamW, cosine.

mmengine's Runner would do; it wants a work folder, hooks and a log format of its own for what is
thirty lines here.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from box_store.coco_annotations import load_coco
from box_store.errors import DataError
from teach_detr.crops import Crop, CropSampler

CONFIG = Path(__file__).parent / "configs" / "rtmdet_toys.py"


@dataclass(frozen=True)
class MMDetRecipe:
    """How long and how fast: `steps` of `batch_size` images each."""

    steps: int = 2500
    batch_size: int = 16
    lr: float = 2e-3
    weight_decay: float = 0.05
    warmup_steps: int = 200
    crop_px: int = 208
    zoom: tuple[float, float] = (0.7, 1.3)
    save_every: int = 250
    seed: int = 0


def build_detector(config: Path = CONFIG) -> tuple[Any, tuple[str, ...]]:
    """The detector of an mmdet configuration file with fresh weights, and its class names."""
    from teacher_infer.adapters.mmcv_ops import install

    install()
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.config import Config
    from mmengine.logging import MMLogger

    register_all_modules()
    # it would log the initialisation of every single parameter
    MMLogger.get_current_instance().setLevel("WARNING")
    settings = Config.fromfile(config)
    model = MODELS.build(settings.model)
    model.init_weights()
    return model, tuple(settings.metainfo["classes"])


def train_mmdet(
    images: Path, annotations: Path, state: Path, recipe: MMDetRecipe, say: Callable[[str], None]
) -> dict[str, Tensor]:
    """Train the packaged detector; returns its weights.

    `state` is written every `recipe.save_every` steps, and training goes on from it when it exists.
    """
    torch.manual_seed(recipe.seed)
    model, class_names = build_detector()
    coco = load_coco(annotations)
    if coco.categories.names != class_names:
        raise DataError(
            f"{annotations}: expected the classes {', '.join(class_names)} of {CONFIG.name}, got "
            f"{', '.join(coco.categories.names)}"
        )
    sampler = CropSampler(images, coco, recipe.crop_px, recipe.zoom)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain}],
        lr=recipe.lr,
        weight_decay=0.0,
    )
    step = _resume(state, model, optimizer)
    started, first = time.monotonic(), step
    model.train()
    while step < recipe.steps:
        rng = np.random.default_rng([recipe.seed, step])
        crops = sampler.batch(recipe.batch_size, rng)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * _schedule(step, recipe)
        data = model.data_preprocessor(_collate(crops), True)
        loss, parts = model.parse_losses(model.loss(data["inputs"], data["data_samples"]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 35.0)
        optimizer.step()
        step += 1
        if step % 50 == 0 or step == recipe.steps:
            speed = (step - first) * recipe.batch_size / (time.monotonic() - started)
            shown = " ".join(f"{k} {float(v):.3f}" for k, v in parts.items())
            say(f"mmdet step {step}/{recipe.steps} {shown} {speed:.1f} images/s")
        if step % recipe.save_every == 0 or step == recipe.steps:
            _save(state, step, model, optimizer)
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def _schedule(step: int, recipe: MMDetRecipe) -> float:
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))


def _resume(state: Path, model: Any, optimizer: torch.optim.Optimizer) -> int:
    if not state.exists():
        return 0
    saved = torch.load(state, weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["step"])


def _save(state: Path, step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
    part = state.with_suffix(".part")
    torch.save(
        {
            "step": step,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
        part,
    )
    part.replace(state)


def _collate(crops: list[Crop]) -> dict[str, list[Any]]:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    data_samples: list[Any] = []
    for crop in crops:
        shape = tuple(crop.pixels.shape[1:])
        meta = {"img_shape": shape, "ori_shape": shape, "scale_factor": (1.0, 1.0)}
        entry = DetDataSample(metainfo=meta)
        entry.gt_instances = InstanceData(bboxes=crop.boxes_xyxy, labels=crop.labels)
        data_samples.append(entry)
    # mmdet's mean and deviation are in BGR order
    return {"inputs": [crop.pixels.flip(0) for crop in crops], "data_samples": data_samples}
