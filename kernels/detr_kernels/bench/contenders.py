"""Who computes the operator: ours, the grid_sample composition, and peers given by name.

Two paths. "function" begins at locations and weights, the public signature that every known
implementation shares. "module" begins where the layer's projections end, at offsets and logits:
whoever has no fused operator runs softmax and locations in torch before it.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from detr_kernels.deform_attn.fused_op import deform_attn_fused
from detr_kernels.deform_attn.fused_reference import attention_weights, sampling_locations
from detr_kernels.deform_attn.levels import shape_tensor
from detr_kernels.deform_attn.op import deform_attn
from detr_kernels.deform_attn.reference import deform_attn_reference
from detr_kernels.errors import ArgumentError

Path = Literal["function", "module"]
PATHS: tuple[Path, ...] = get_args(Path)
BASELINE = "grid_sample"

# deform_attn's signature: value, spatial_shapes, sampling_locations, attention_weights
Function = Callable[[Tensor, Sequence[tuple[int, int]], Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to compute a path; `dtype` is that of value and output.

    run: takes the fields of `Inputs` or `FusedInputs` without grad_output, returns the output.
    """

    name: str
    path: Path
    dtype: torch.dtype
    run: Callable[..., Tensor]


def contenders(
    path: Path,
    backends: Sequence[str],
    dtypes: Sequence[torch.dtype],
    peers: dict[str, Function],
) -> list[Contender]:
    """Everyone at every dtype; the baseline, which ratios are to, comes last and in fp32."""
    listed: list[Contender] = []
    for backend in backends:
        ours = partial(deform_attn, backend=backend)
        for dtype in dtypes:
            if path == "module":
                fused = partial(deform_attn_fused, backend=backend)
                listed.append(Contender(f"ours ({backend}, fused)", path, dtype, fused))
            name = f"ours ({backend})" if path == "function" else f"ours ({backend}, unfused)"
            listed.append(Contender(name, path, dtype, _on(path, ours)))
    others = peers | {BASELINE: deform_attn_reference}
    for name, function in others.items():
        for dtype in dtypes:
            if dtype != torch.float32:
                # as mixed precision runs operators that lack a dtype, and as peers of the 2020
                # design must run: cast in, cast out
                run = _on(path, _in_float32(function))
                listed.append(Contender(f"{name}, cast", path, dtype, run))
            if dtype != torch.float32 and function is not deform_attn_reference:
                listed.append(Contender(name, path, dtype, _on(path, function)))
        listed.append(Contender(name, path, torch.float32, _on(path, function)))
    return listed


def load_peer(name: str) -> Function:
    """The function that `module:function` names, taking `deform_attn`'s four arguments.

    Raises ArgumentError where it cannot be had.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise ArgumentError(f"--peer: expected module:function, got {name!r}")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ArgumentError(f"--peer {name}: {module_name} cannot be imported: {error}") from error
    function: Any = getattr(module, attribute, None)
    if not callable(function):
        raise ArgumentError(f"--peer {name}: {module_name} has no function {attribute!r}")
    return cast(Function, function)


def _on(path: Path, function: Function) -> Callable[..., Tensor]:
    """`function` where the path begins."""
    return function if path == "function" else _composed(function)


def _composed(function: Function) -> Callable[..., Tensor]:
    def run(
        value: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        offsets: Tensor,
        logits: Tensor,
        reference: Tensor,
    ) -> Tensor:
        sizes = shape_tensor(spatial_shapes, value.device)
        locations = sampling_locations(reference, offsets, sizes)
        weights = attention_weights(logits.to(locations.dtype))
        return function(value, spatial_shapes, locations, weights)

    return run


def _in_float32(function: Function) -> Function:
    def run(
        value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
    ) -> Tensor:
        return function(value.float(), shapes, locations, weights).to(value.dtype)

    return run
