"""What ships with the package: configurations, and weights and how they become checkpoints."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from box_store.errors import DataError

MMDET_TEACHER = "rtmdet_toys.safetensors"
START_STUDENT = "dino_start.safetensors"


def weights_folder() -> Path:
    """The folder inside the package."""
    return Path(__file__).parent / "weights"


def config_file(name: str) -> Path:
    """A teacher's configuration inside the package."""
    return Path(__file__).parent / "configs" / name


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file in float32 (whole numbers as they are), and its metadata.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"cannot read the weights {path} ({error}): install teach-detr again, or make them "
            "anew with `teach-detr demo-weights`"
        ) from error
    return {
        name: value.float() if value.is_floating_point() else value
        for name, value in tensors.items()
    }, metadata


def half(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point tensors in float16: half the size, and no difference to AP at these sizes."""
    return {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in tensors.items()
    }


def mmdet_checkpoint(out: Path, source: Path | None = None) -> Path:
    """Write the mmdet teacher, by default the shipped one, as a checkpoint that mmdet reads.

    A file that is there already is taken as it is. Returns `out`.

    Raises:
        DataError: the shipped file is missing or damaged.
    """
    if not out.exists():
        tensors, metadata = read_weights(source or weights_folder() / MMDET_TEACHER)
        save_mmdet_checkpoint(out, tensors, metadata["classes"].split(","))
    return out


def save_mmdet_checkpoint(out: Path, tensors: dict[str, Tensor], classes: Sequence[str]) -> None:
    """Write weights with their class names in the form that mmdet's own training writes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    meta = {"dataset_meta": {"classes": list(classes)}}
    torch.save({"state_dict": tensors, "meta": meta}, part)
    part.replace(out)
