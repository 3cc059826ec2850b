"""A short training loop for an mmdet detector: `model.loss()`, AdamW, cosine.

mmengine's Runner would do; it wants a work folder, hooks and a log format of its own for what is
thirty lines here.

    python -m teach_detr.toy_teachers.mmdet_training FOLDER OUT.pth --steps 600

fine-tunes the shipped weights. FOLDER is laid out as for `yolo_training`; beside OUT.pth go OUT.py,
its configuration, and OUT.state, from which the same command goes on.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from box_store.coco.annotations import load_coco
from box_store.patience import duration
from student_train.runs.checkpoint import load_matching
from teach_detr.toy_teachers.crops import Crop, CropSampler
from teach_detr.toy_teachers.shipped import (
    MMDET_TEACHER,
    config_file,
    read_weights,
    save_mmdet_checkpoint,
    weights_folder,
)

CONFIG = config_file("rtmdet_toys.py")


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


def detector_config(classes: Sequence[str], image_px: int | None = None) -> Any:
    """The packaged mmdet configuration for these classes; `image_px` is the longer side at which
    it looks at images, by default the demo's.
    """
    from mmengine.config import Config

    settings = Config.fromfile(CONFIG)
    settings.metainfo.classes = settings.test_dataloader.dataset.metainfo.classes = tuple(classes)
    settings.num_classes = settings.model.bbox_head.num_classes = len(classes)
    if image_px is not None:
        for pipeline in (settings.test_pipeline, settings.test_dataloader.dataset.pipeline):
            pipeline[1]["scale"] = (image_px, image_px)
    return settings


def build_detector(settings: Any) -> Any:
    """The detector of an mmdet configuration with fresh weights."""
    from teacher_infer.adapters.mmcv_ops import install

    install()
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.logging import MMLogger

    register_all_modules()
    # it would log the initialisation of every single parameter
    MMLogger.get_current_instance().setLevel("WARNING")
    model = MODELS.build(settings.model)
    model.init_weights()
    return model


def train_mmdet(
    images: Path,
    annotations: Path,
    state: Path,
    recipe: MMDetRecipe,
    say: Callable[[str], None],
    *,
    init: Path | None = None,
    device: str = "cpu",
) -> dict[str, Tensor]:
    """Train the packaged detector on the classes of `annotations`; returns its weights, on the CPU.

    `init` is a safetensors file to fine-tune from: what fits is taken, so a head for other classes
    is made anew. `state` is written every `recipe.save_every` steps, and training goes on from it
    when it exists.

    Raises:
        DataError: damaged annotations or weights.
    """
    torch.manual_seed(recipe.seed)
    coco = load_coco(annotations)
    model = build_detector(detector_config(coco.categories.names))
    if init is not None and not state.exists():
        report = load_matching(model, read_weights(init)[0])
        say(f"mmdet starts from {init.name}: {report.describe()}")
    model.to(device)
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
            shown = " ".join(f"{k} {float(v.detach()):.3f}" for k, v in parts.items())
            left = duration((recipe.steps - step) * recipe.batch_size / speed)
            say(f"mmdet step {step}/{recipe.steps} {shown} {speed:.1f} images/s, {left} left")
        if step % recipe.save_every == 0 or step == recipe.steps:
            _save(state, step, model, optimizer)
    return {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}


def _schedule(step: int, recipe: MMDetRecipe) -> float:
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))


def _resume(state: Path, model: Any, optimizer: torch.optim.Optimizer) -> int:
    if not state.exists():
        return 0
    saved = torch.load(state, weights_only=True, map_location="cpu")
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


def fine_tune(
    folder: Path, out: Path, recipe: MMDetRecipe, image_px: int | None, device: str
) -> None:
    """Train from the shipped weights on the classes of `folder`; write `out` and its configuration.

    `image_px` is the longer side at which the detector will look at images.
    """
    annotations = folder / "images" / "annotations" / "instances_train.json"
    tensors = train_mmdet(
        folder / "images" / "train",
        annotations,
        out.with_suffix(".state"),
        recipe,
        lambda text: print(text, flush=True),
        init=weights_folder() / MMDET_TEACHER,
        device=device,
    )
    classes = load_coco(annotations).categories.names
    detector_config(classes, image_px).dump(out.with_suffix(".py"))
    save_mmdet_checkpoint(out, tensors, classes)


def main() -> None:
    """Read the arguments and train."""
    default = MMDetRecipe()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=default.steps)
    parser.add_argument("--lr", type=float, default=default.lr)
    parser.add_argument("--zoom", type=float, nargs=2, default=default.zoom)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--image-size", type=int, default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    recipe = MMDetRecipe(
        steps=given.steps,
        lr=given.lr,
        zoom=tuple(given.zoom),
        warmup_steps=min(40, given.steps // 2),
        save_every=50,
        seed=given.seed,
    )
    fine_tune(given.folder, given.out, recipe, given.image_size, given.device)


if __name__ == "__main__":
    main()
