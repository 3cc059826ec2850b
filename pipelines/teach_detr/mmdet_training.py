"""A short training loop for an mmdet detector: `model.loss()`, AdamW, cosine, moving average.

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
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2.functional import resize

from box_store.coco_annotations import CocoData, ImageInfo, load_coco

CONFIG = Path(__file__).parent / "configs" / "rtmdet_toys.py"

# a box that keeps less than this part of itself after the crop is not asked for
_MIN_KEPT = 0.4
_EMA_DECAY = 0.998


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

    register_all_modules()
    settings = Config.fromfile(config)
    return MODELS.build(settings.model), tuple(settings.metainfo["classes"])


def train_mmdet(
    images: Path, annotations: Path, state: Path, recipe: MMDetRecipe, say: Callable[[str], None]
) -> dict[str, Tensor]:
    """Train the packaged detector; returns the averaged weights.

    `state` is written every `recipe.save_every` steps, and training goes on from it when it exists.
    """
    torch.manual_seed(recipe.seed)
    model, class_names = build_detector()
    coco = load_coco(annotations)
    label_of = {category.id: class_names.index(category.name) for category in coco.categories.items}
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain}],
        lr=recipe.lr,
        weight_decay=0.0,
    )
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(_EMA_DECAY), use_buffers=True
    )
    step = _resume(state, model, average, optimizer)
    started, first = time.monotonic(), step
    model.train()
    while step < recipe.steps:
        rng = np.random.default_rng([recipe.seed, step])
        chosen = rng.choice(len(coco.images), recipe.batch_size, replace=False)
        samples = [_sample(images, coco, coco.images[i], label_of, recipe, rng) for i in chosen]
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * _schedule(step, recipe)
        data = model.data_preprocessor(_collate(samples), True)
        loss, parts = model.parse_losses(model.loss(data["inputs"], data["data_samples"]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 35.0)
        optimizer.step()
        average.update_parameters(model)
        step += 1
        if step % 50 == 0 or step == recipe.steps:
            speed = (step - first) * recipe.batch_size / (time.monotonic() - started)
            shown = " ".join(f"{k} {float(v):.3f}" for k, v in parts.items())
            say(f"mmdet step {step}/{recipe.steps} {shown} {speed:.1f} images/s")
        if step % recipe.save_every == 0 or step == recipe.steps:
            _save(state, step, model, average, optimizer)
    return {k: v.detach().clone() for k, v in average.module.state_dict().items()}


def _schedule(step: int, recipe: MMDetRecipe) -> float:
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))


def _resume(state: Path, model: Any, average: Any, optimizer: torch.optim.Optimizer) -> int:
    if not state.exists():
        return 0
    saved = torch.load(state, weights_only=True)
    model.load_state_dict(saved["model"])
    average.load_state_dict(saved["average"])
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["step"])


def _save(
    state: Path, step: int, model: Any, average: Any, optimizer: torch.optim.Optimizer
) -> None:
    part = state.with_suffix(".part")
    torch.save(
        {
            "step": step,
            "model": model.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
        part,
    )
    part.replace(state)


@dataclass(frozen=True)
class _Sample:
    pixels: Tensor  # uint8 [3, H, W], BGR
    boxes_xyxy: Tensor  # [N, 4]
    labels: Tensor  # [N]


def _sample(
    folder: Path,
    coco: CocoData,
    image: ImageInfo,
    label_of: dict[int, int],
    recipe: MMDetRecipe,
    rng: np.random.Generator,
) -> _Sample:
    """One training image: zoomed, cropped, mirrored, its colours scaled channel by channel."""
    truth = coco.annotations_of(image.id)
    pixels = decode_image(str(folder / image.file_name), mode=ImageReadMode.RGB).flip(0)
    boxes = truth.boxes_xyxy.astype(np.float64)
    labels = np.asarray([label_of[int(c)] for c in truth.category_ids], np.int64)
    zoom = rng.uniform(*recipe.zoom)
    height, width = round(image.height * zoom), round(image.width * zoom)
    pixels = resize(pixels, [height, width], antialias=True)
    boxes *= np.tile([width / image.width, height / image.height], 2)
    top = int(rng.integers(max(0, height - recipe.crop_px) + 1))
    left = int(rng.integers(max(0, width - recipe.crop_px) + 1))
    pixels = pixels[:, top : top + recipe.crop_px, left : left + recipe.crop_px]
    full = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    boxes -= np.tile([left, top], 2)
    boxes = boxes.clip(0, np.tile([pixels.shape[2], pixels.shape[1]], 2))
    kept = (boxes[:, 2:] - boxes[:, :2]).prod(1) > _MIN_KEPT * full
    boxes, labels = boxes[kept], labels[kept]
    if rng.random() < 0.5:
        pixels = pixels.flip(2)
        boxes = boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [pixels.shape[2], 0, pixels.shape[2], 0]
    gain = torch.from_numpy(rng.uniform(0.8, 1.2, (3, 1, 1)).astype(np.float32))
    pixels = (pixels * gain).clamp(0, 255).byte()
    return _Sample(pixels, torch.from_numpy(boxes).float(), torch.from_numpy(labels))


def _collate(samples: list[_Sample]) -> dict[str, list[Any]]:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    data_samples: list[Any] = []
    for sample in samples:
        shape = tuple(sample.pixels.shape[1:])
        meta = {"img_shape": shape, "ori_shape": shape, "scale_factor": (1.0, 1.0)}
        entry = DetDataSample(metainfo=meta)
        entry.gt_instances = InstanceData(bboxes=sample.boxes_xyxy, labels=sample.labels)
        data_samples.append(entry)
    return {"inputs": [sample.pixels for sample in samples], "data_samples": data_samples}
