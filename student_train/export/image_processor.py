"""`preprocessor_config.json`: how transformers makes pixels of a student's images."""

from __future__ import annotations

from typing import Any

from student_train.config import TrainConfig


def image_settings(processor: str, square: bool, config: TrainConfig) -> tuple[dict[str, Any], str]:
    """The file's content, and what will differ from here, for people; empty if nothing does.

    `processor` is their class; `square`: their model looks at padding, or wants sides that fit, and
    so every image has to be squashed to one square.
    """
    augment, pixels = config.augment, config.model.pixels
    side, note = augment.eval_square, ""
    if side is None and square:
        multiple = config.model.side_multiple
        side = max(1, augment.eval_short_side // multiple) * multiple
        note = (
            f"images keep their shape here (augment.eval_square=none) and are squashed to {side} x "
            f"{side} px there, as transformers has no mask for this family: detections differ"
        )
    shape = {"shortest_edge": augment.eval_short_side, "longest_edge": augment.eval_long_side}
    content = {
        "image_processor_type": processor,
        "do_resize": True,
        "size": shape if side is None else {"height": side, "width": side},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": pixels.is_scaled,
        "do_pad": side is None,
        "format": "coco_detection",
        "do_convert_annotations": True,
    }
    if pixels.is_scaled:
        content |= {"image_mean": list(pixels.mean), "image_std": list(pixels.deviation)}
    return content, note
