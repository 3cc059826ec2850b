"""The compiled operators of mmcv that mmdet's detectors call, on torchvision and `detr_kernels`.

mmdet 3.3 wants mmcv < 2.2, which has no wheels for current PyTorch. `mmcv-lite` is the same package
without its compiled module `mmcv._ext`; `install()` puts an equivalent in its place, so that mmdet
runs, on CPU and GPU, without a compiler. It has to be called before the first import of `mmcv.ops`
or `mmdet`.

Written from the call sites in mmcv's Python files (`mmcv/ops/*.py`, 2.1.0) and the papers'
definitions. Most operators fill a preallocated output, as the compiled ones do. Tensors arrive by
position and numbers by keyword; mmcv's autograd functions fix the names, odd ones included.
"""

import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
import torchvision
from torch import Tensor

from box_store.errors import TeachDetrError

MODULE_NAME = "mmcv._ext"


class UnsupportedOperator(TeachDetrError):
    """A model called an operator of mmcv that has no equivalent here."""


def compiled_mmcv_present() -> bool:
    """Whether the installed mmcv brings its own compiled operators; mmcv isn't imported for it."""
    parent = importlib.util.find_spec("mmcv")
    if parent is None or parent.submodule_search_locations is None:
        return False
    places = list(parent.submodule_search_locations)
    return importlib.machinery.PathFinder.find_spec(MODULE_NAME, places) is not None


def install() -> bool:
    """Supply `mmcv._ext` unless a compiled one is present; returns whether ours is in use."""
    if MODULE_NAME in sys.modules:
        return isinstance(sys.modules[MODULE_NAME], _Operators)
    if compiled_mmcv_present():
        return False
    sys.modules[MODULE_NAME] = _Operators()
    return True


def nms(bboxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Indices (int64) of the boxes [N, 4] that survive, by descending score.

    `offset` (0 or 1 px) is added to every width and height: the convention of inclusive corners.
    """
    # growing the far corner gives exactly mmcv's x2 - x1 + offset in areas and in intersections
    grown = bboxes + bboxes.new_tensor([0.0, 0.0, offset, offset])
    return torchvision.ops.nms(grown.float(), scores.float(), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int = 0,
) -> Tensor:
    """Soft-NMS (Bodla et al. 2017): overlapping boxes lose score instead of being dropped at once.

    `method` is 0 (plain), 1 (linear) or 2 (Gaussian). Fills the first K rows of `dets` [N, 5] with
    box and decayed score, and returns the K indices into `boxes`, in the order of selection.
    """
    grown = boxes + boxes.new_tensor([0.0, 0.0, offset, offset])
    current = scores.clone()
    alive = torch.arange(len(boxes))
    chosen: list[int] = []
    while alive.numel():
        best = int(current[alive].argmax())
        index = int(alive[best])
        dets[len(chosen), :4] = boxes[index]
        dets[len(chosen), 4] = current[index]
        chosen.append(index)
        alive = torch.cat([alive[:best], alive[best + 1 :]])
        iou = torchvision.ops.box_iou(grown[index : index + 1], grown[alive])[0]
        if method == 2:
            weight = torch.exp(-iou.square() / sigma)
        else:
            kept = 1 - iou if method == 1 else torch.zeros_like(iou)
            weight = torch.where(iou >= iou_threshold, kept, torch.ones_like(iou))
        current[alive] *= weight
        alive = alive[current[alive] >= min_score]
    return torch.tensor(chosen, dtype=torch.int64)


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Averaging RoIAlign of `input` [N, C, H, W] at `rois` [K, 5] (image, xyxy) into `output`."""
    _refuse_max_pooling(pool_mode)
    size = (aligned_height, aligned_width)
    pooled = torchvision.ops.roi_align(
        input, rois.to(input.dtype), size, spatial_scale, _ratio(sampling_ratio), aligned
    )
    output.copy_(pooled)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of `roi_align_forward` with regard to its input, into `grad_input` [N, C, H, W]."""
    _refuse_max_pooling(pool_mode)
    gradient = torch.ops.torchvision._roi_align_backward(
        grad_output,
        rois.to(grad_output.dtype),
        spatial_scale,
        aligned_height,
        aligned_width,
        *grad_input.shape,
        _ratio(sampling_ratio),
        aligned,
    )
    grad_input.copy_(gradient)


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention, [B, Q, H*D]: mmcv's GPU path; on a CPU it has its own."""
    from detr_kernels import deform_attn

    return deform_attn(value, value_spatial_shapes, sampling_locations, attention_weights)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Gradients of `ms_deform_attn_forward`, into the three preallocated tensors."""
    from detr_kernels import deform_attn

    gradients = _gradients(
        lambda value, locations, weights: deform_attn(
            value, value_spatial_shapes, locations, weights
        ),
        (value, sampling_locations, attention_weights),
        grad_output,
    )
    for target, gradient in zip(
        (grad_value, grad_sampling_loc, grad_attn_weight), gradients, strict=True
    ):
        target.copy_(gradient)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    **sizes: Any,
) -> None:
    """Deformable convolution v2 (offset and mask per kernel point) into `output` [N, C, H, W]."""
    convolve = _deformable_convolution(sizes)
    output.copy_(convolve(input, offset, weight, mask, bias if sizes["with_bias"] else None))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    **sizes: Any,
) -> None:
    """Gradients of `modulated_deform_conv_forward`, into the preallocated tensors."""
    inputs = [input, offset, weight, mask]
    targets = [grad_input, grad_offset, grad_weight, grad_mask]
    if sizes["with_bias"]:
        inputs.append(bias)
        targets.append(grad_bias)
    gradients = _gradients(_deformable_convolution(sizes), tuple(inputs), grad_output)
    for target, gradient in zip(targets, gradients, strict=True):
        target.copy_(gradient)


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    *,
    dH: int,
    dW: int,
    padH: int,
    padW: int,
    dilationH: int,
    dilationW: int,
    **unused: Any,
) -> None:
    """Deformable convolution v1 (offsets only) into `output`; for inference, it has no backward."""
    output.copy_(
        torchvision.ops.deform_conv2d(
            input,
            offset,
            weight,
            stride=(dH, dW),
            padding=(padH, padW),
            dilation=(dilationH, dilationW),
        )
    )


OPERATORS: tuple[Callable[..., Any], ...] = (
    nms,
    softnms,
    roi_align_forward,
    roi_align_backward,
    ms_deform_attn_forward,
    ms_deform_attn_backward,
    modulated_deform_conv_forward,
    modulated_deform_conv_backward,
    deform_conv_forward,
)


class _Operators(ModuleType):
    """Stands for `mmcv._ext`: the operators above; any other name says what it is when called."""

    def __init__(self) -> None:
        super().__init__(MODULE_NAME, "mmcv's operators on torchvision and detr_kernels")
        # mmengine asks pkgutil whether the module exists, which reads the spec
        self.__spec__ = importlib.machinery.ModuleSpec(MODULE_NAME, None)
        for operator in OPERATORS:
            setattr(self, operator.__name__, operator)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: Any, **kwargs: Any) -> None:
            supplied = ", ".join(sorted(operator.__name__ for operator in OPERATORS))
            raise UnsupportedOperator(
                f"this mmdet model calls mmcv's operator {name!r}, which needs a compiled mmcv; "
                f"without a compiler there are only: {supplied}. "
                "Use another config, or build mmcv 2.1 from source."
            )

        missing.__name__ = name
        return missing


def _ratio(sampling_ratio: int) -> int:
    # "as many samples as the bin has pixels" is 0 in mmcv and -1 in torchvision
    return sampling_ratio if sampling_ratio > 0 else -1


def _refuse_max_pooling(pool_mode: int) -> None:
    if pool_mode == 0:
        raise UnsupportedOperator(
            "RoIAlign with pool_mode='max' needs a compiled mmcv; expected the default 'avg'. "
            "Set pool_mode='avg' in the config's roi_layer."
        )


def _deformable_convolution(sizes: dict[str, Any]) -> Callable[..., Tensor]:
    def convolve(
        input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        return torchvision.ops.deform_conv2d(
            input,
            offset,
            weight,
            bias,
            stride=(sizes["stride_h"], sizes["stride_w"]),
            padding=(sizes["pad_h"], sizes["pad_w"]),
            dilation=(sizes["dilation_h"], sizes["dilation_w"]),
            mask=mask,
        )

    return convolve


def _gradients(
    function: Callable[..., Tensor], inputs: tuple[Tensor, ...], grad_output: Tensor
) -> tuple[Tensor, ...]:
    # autograd is off inside the backward of the Function that calls this
    with torch.enable_grad():
        leaves = tuple(tensor.detach().requires_grad_() for tensor in inputs)
        return torch.autograd.grad(function(*leaves), leaves, grad_output)
