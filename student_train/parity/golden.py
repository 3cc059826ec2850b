"""Golden sets: numbers of official implementations, and how to rebuild what they were fed with.

A student's set holds settings and official keys (`NAME.keys.json`), outputs (`NAME.npz`) and
perhaps one training step (`NAME.train.npz`). Its parameters, images and targets are not stored:
each is drawn from a random stream that its own name and the set's seed start.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from student_train.errors import CheckpointError
from student_train.models.targets import Targets

Arrays = dict[str, np.ndarray]

# standard deviation of learned tables; first fit
_TABLES = [
    (r"(refpoint_embed|query_embed)\.weight$", 1.0),
    (r"(tgt_embed|label_enc|patterns|det_pos_embed|det_token)(\.weight)?$", 0.7),
    (
        r"(level_embed|pos_embed|cls_token|relative_position_bias_table|"
        r"row_embed\.weight|col_embed\.weight)$",
        0.5,
    ),
]
# matrices and kernels: normal numbers x gain / sqrt(fan in); first fit
_GAINS = [
    (r"(bbox_embed(\.\d+)?|enc_out_bbox_embed)\.layers\.2\.weight$", 0.3),
    (r"class_embed\.layers\.2\.weight$", 2.0),
    (r"(class|bbox)_embed(\.\d+)?\.layers\.[01]\.weight$", 1.4),
    (r"attention_weights\.weight$", 1.5),
    (r"sampling_offsets\.weight$", 0.4),
    (r"(encoder|decoder)\.layers\.\d+\.self_attn\.(out_proj|output_proj)\.weight$", 0.5),
    (r"cross_attn\.output_proj\.weight$", 1.2),
    (r"decoder\.layers\.0\.cross_attn\.out_proj\.weight$", 4.0),
    (r"cross_attn\.out_proj\.weight$", 0.7),
    (r"linear2\.weight$", 0.7),
    (r"^input_proj(\.\d+\.0)?\.weight$", 0.7),
    (r"(sa|ca)_[qk](content|pos)_proj\.weight$", 2.0),
    (r"ca_qpos_sine_proj\.weight$", 3.5),
]


def stream(name: str, seed: int) -> np.random.Generator:
    """A random stream of its own for every name and seed, the same on every machine."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) + seed * 2**32))


def _first_fit(table: list[tuple[str, float]], key: str) -> float | None:
    return next((value for pattern, value in table if re.search(pattern, key)), None)


Rule = tuple[str, str, float, float]
"""pattern of keys, kind, and two numbers: `constant` a, `normal` a + b n, `matrix` with gain a"""


def parameter(
    key: str, shape: tuple[int, ...], seed: int, rules: Sequence[Rule] = ()
) -> np.ndarray:
    """The float32 value of an official parameter: no zeros, no symmetry, tokens that stay apart.

    `rules` of the set come before those that all sets share; the first that fits wins.
    """
    draw = stream(key, seed)
    _, kind, a, b = next((rule for rule in rules if re.search(rule[0], key)), ("", "", 0.0, 0.0))
    if kind == "constant":
        return np.full(shape, a, np.float32)
    if kind == "normal":
        return np.asarray(a + b * draw.standard_normal(shape), np.float32)
    if key.endswith("running_var"):
        return (1.0 + 0.1 * draw.random(shape)).astype(np.float32)
    normal = draw.standard_normal(shape)
    table = _first_fit(_TABLES, key)
    if key.endswith("running_mean"):
        value = 0.05 * normal
    elif key.endswith("sampling_offsets.bias"):
        value = normal
    elif re.search(r"class_embed(\.\d+)?\.bias$", key):
        value = -2.0 + 0.3 * normal
    elif re.search(r"class_embed\.layers\.2\.bias$", key):
        value = 0.3 * normal
    elif key.endswith("activation.weight"):
        value = 0.25 + 0.05 * normal
    elif key.endswith("bn3.weight"):
        value = 0.3 + 0.05 * normal
    elif len(shape) == 1 and key.endswith("weight"):
        value = 1.0 + 0.05 * normal
    elif table is not None:
        value = table * normal
    elif len(shape) <= 1:
        value = 0.05 * normal
    else:
        value = _matrix(key, normal, a if kind == "matrix" else None)
    return np.asarray(value, np.float32)


def _matrix(key: str, normal: np.ndarray, own_gain: float | None) -> np.ndarray:
    fan_in = int(np.prod(normal.shape[1:]))
    if fan_in >= 16:
        # rows that sum to zero do not pass on the positive mean that a ReLU leaves
        normal = normal - normal.mean(axis=tuple(range(1, normal.ndim)), keepdims=True)
    gain: float | np.ndarray | None = _first_fit(_GAINS, key) if own_gain is None else own_gain
    if gain is None and re.search(r"(in_proj_weight|qkv\.weight)$", key):
        # queries and keys larger than values, so that attention is not flat
        gain = np.ones((len(normal), 1))
        gain[: len(normal) // 3 * 2] = 1.7 if key.endswith("in_proj_weight") else 1.2
    elif gain is None:
        gain = 2.0**0.5 if normal.ndim == 4 else 1.0
    return gain * normal / fan_in**0.5


@dataclass(frozen=True)
class GoldenStudent:
    """One detector's set."""

    name: str
    settings: dict[str, Any]
    """the content of NAME.keys.json"""
    outputs: Arrays
    """NAME.npz"""
    train: Arrays | None
    """NAME.train.npz, if there is one"""

    @staticmethod
    def open(folder: Path, name: str) -> GoldenStudent:
        """Read a set. Raises CheckpointError for damaged files."""
        train = folder / f"{name}.train.npz"
        return GoldenStudent(
            name,
            read_json(folder / f"{name}.keys.json"),
            read_arrays(folder / f"{name}.npz"),
            read_arrays(train) if train.exists() else None,
        )

    def parameters(self) -> dict[str, Tensor]:
        """The official state dict, float32. Raises CheckpointError if numpy drew other numbers."""
        state: dict[str, Tensor] = {}
        for key, shape, dtype, checksum, alias in self.settings["keys"]:
            if dtype != "float32":
                continue
            if alias:
                state[key] = state[alias]
                continue
            rules = self.settings.get("rules", ())
            value = parameter(key, tuple(shape), self.settings["seed"], rules)
            if checksum is not None and zlib.crc32(value.tobytes()) != checksum:
                raise CheckpointError(
                    f"{self.name}: numpy {np.__version__} draws other numbers for {key} than those "
                    "the golden outputs were made with; use the numpy of constraints.txt"
                )
            state[key] = torch.from_numpy(value)
        return state

    def batch(self) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W] float32, zero at the right and bottom, and mask [B, H, W]."""
        sizes, seed = self.settings["images"]["sizes"], self.settings["images"]["seed"]
        height, width = (max(size[i] for size in sizes) for i in (0, 1))
        images = np.zeros((len(sizes), 3, height, width), np.float32)
        mask = np.ones((len(sizes), height, width), bool)
        for i, (h, w) in enumerate(sizes):
            images[i, :, :h, :w] = _image(i, h, w, seed)
            mask[i, :h, :w] = False
        return torch.from_numpy(images), torch.from_numpy(mask)

    def targets(self) -> list[Targets]:
        """Ground truth of the training step; labels are indices of logits."""
        asked = self.settings["train"]["targets"]
        classes = asked.get("classes", 91)
        return [_targets(i, n, asked["seed"], classes) for i, n in enumerate(asked["counts"])]


def _image(index: int, height: int, width: int, seed: int) -> np.ndarray:
    """White noise over coarse blocks, so that regions differ."""
    draw = stream(f"image.{index}", seed)
    fine = draw.standard_normal((3, height, width))
    coarse = draw.standard_normal((3, -(-height // 16), -(-width // 16)))
    coarse = coarse.repeat(16, 1).repeat(16, 2)[:, :height, :width]
    return (0.6 * fine + 0.8 * coarse).astype(np.float32)


def _targets(index: int, count: int, seed: int, classes: int) -> Targets:
    draw = stream(f"target.{index}", seed)
    labels = draw.integers(1, classes, count)
    sides = 0.08 + 0.42 * draw.random((count, 2))
    centres = sides / 2 + (1 - sides) * draw.random((count, 2))
    boxes = np.concatenate([centres, sides], 1).astype(np.float32)
    return Targets.truth(torch.from_numpy(labels.astype(np.int64)), torch.from_numpy(boxes))


def probe(x: Tensor) -> np.ndarray:
    """66 numbers that describe a tensor: mean, standard deviation, 64 values evenly spread."""
    flat = x.detach().reshape(-1).double().numpy()
    at = np.linspace(0, flat.size - 1, 64).round().astype(np.int64)
    return np.concatenate([[flat.mean(), flat.std()], flat[at]])


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}") from error


def read_arrays(path: Path) -> Arrays:
    """All arrays of an .npz file. Raises CheckpointError."""
    try:
        # opened here: numpy leaves a damaged file open
        with path.open("rb") as file, np.load(file) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise CheckpointError(f"{path} is not a readable .npz file: {error}") from error
