"""An ONNX file that takes photos as they are: bytes of any size, resized and scaled in the file.

What `EvalTransform` and `Pixels` do outside, as operators of ONNX: DETR's rule for sizes in whole
numbers, a triangle filter that widens as the image shrinks (Pillow's and torch's "antialias"), as
two products with matrices that are made from the sizes. As torch (ATen, `UpSampleKernel`) and
Pillow do, weights are whole numbers of at most 15 bits, and bytes are made after each product, so
that pixels are the same, not only alike. `Resize` has a filter too, which not all runtimes heed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from student_train.config import TrainConfig
from student_train.data import EvalTransform
from student_train.errors import ExportError
from student_train.export.runtimes import REFERENCE, Served
from student_train.predictor import as_batch
from student_train.runs.exported import BYTES, CARD, INPUTS, PHOTOS, Feeds

# grey levels: where a photo shrinks to less than a quarter, weights have more than 16 bits, and
# their sums, which float32 does not hold exactly, may end beside a half
_APART = 1.01
_PREFIX = "photo_"

_HEAD = """<ir_version: 10, opset_import: ["": 18]>
photo (uint8[batch, height, width, 3] images) => (float[b, 3, h, w] pixels, bool[b, h, w] mask)
<int64 zero = {{0}}, int64 one = {{1}}, int64 two = {{2}}, int64[1] first = {{0}},
 int64[1] second = {{1}}, int64[6] nothing = {{0, 0, 0, 0, 0, 0}}, float half = {{0.5}},
 float limit = {{32767.5}}, float log_two = {{0.6931472}},
 float two_f = {{2.0}}, float most_bits = {{22.0}}, int64[2] step = {{{step}, {step}}},
 int64[2] canvas = {{{canvas}}},
 int64[2] square = {{{square}}}, int64 short = {{{short}}}, int64 long = {{{long}}},
 float[3, 1, 1] mean = {{{mean}}}, float[3, 1, 1] deviation = {{{deviation}}}>
{{
  size = Shape <start: int = 1, end: int = 3> (images)
  n_images = Shape <start: int = 0, end: int = 1> (images)
"""

_SQUARE = "  target = Identity (square)\n"

# a short side, or as far as the long side allows, rounded half to even as Python rounds
_SIDES = """  low = ReduceMin <keepdims: int = 0> (size)
  high = ReduceMax <keepdims: int = 0> (size)
  wide = Mul (high, short)
  bound = Mul (long, low)
  beyond = Greater (wide, bound)
  twice = Mul (bound, two)
  dividend = Add (twice, high)
  divisor = Mul (high, two)
  up = Div (dividend, divisor)
  rest = Mod (dividend, divisor)
  parity = Mod (up, two)
  tied = Equal (rest, zero)
  odd = Equal (parity, one)
  down = And (tied, odd)
  off = Cast <to: int = 7> (down)
  nearest = Sub (up, off)
  shorter = Max (nearest, one)
  side = Where (beyond, shorter, short)
  stretched = Mul (size, side)
  floor = Div (stretched, low)
  target = Max (floor, one)
"""

_FIXED = "  fitting = Min (target, canvas)\n  whole = Identity (canvas)\n"
_FREE = """  fitting = Identity (target)
  nearly = Add (target, step)
  more = Sub (nearly, one)
  steps = Div (more, step)
  whole = Mul (steps, step)
"""

# one axis, `at` its number in the sizes; distances of pixels' middles in whole numbers, in units of
# 1 / (2 x both sizes), as places in float32 would be off by more than the weights are rounded to
_AXIS = """  {a}_old = Gather (size, {at})
  {a}_new = Gather (fitting, {at})
  {a}_larger = Max ({a}_old, {a}_new)
  {a}_reach = Mul ({a}_larger, two)
  {a}_from = Range (zero, {a}_old, one)
  {a}_from_twice = Mul ({a}_from, two)
  {a}_from_odd = Add ({a}_from_twice, one)
  {a}_from_mid = Mul ({a}_from_odd, {a}_new)
  {a}_to = Range (zero, {a}_new, one)
  {a}_to_twice = Mul ({a}_to, two)
  {a}_to_odd = Add ({a}_to_twice, one)
  {a}_to_mid = Mul ({a}_to_odd, {a}_old)
  {a}_row = Unsqueeze ({a}_from_mid, first)
  {a}_column = Unsqueeze ({a}_to_mid, second)
  {a}_apart = Sub ({a}_row, {a}_column)
  {a}_abs = Abs ({a}_apart)
  {a}_left = Sub ({a}_reach, {a}_abs)
  {a}_inside = Max ({a}_left, zero)
  {a}_raw = Cast <to: int = 1> ({a}_inside)
  {a}_sum = ReduceSum <keepdims: int = 1> ({a}_raw, second)
  {a}_exact = Div ({a}_raw, {a}_sum)
  {a}_peak = ReduceMax <keepdims: int = 0> ({a}_exact)
  {a}_room = Div (limit, {a}_peak)
  {a}_log = Log ({a}_room)
  {a}_bits = Div ({a}_log, log_two)
  {a}_whole_bits = Floor ({a}_bits)
  {a}_few_bits = Min ({a}_whole_bits, most_bits)
  {a}_power = Pow (two_f, {a}_few_bits)
  {a}_one = Round ({a}_power)
  {a}_large = Mul ({a}_exact, {a}_one)
  {a}_nearly = Add ({a}_large, half)
  {a}_weights = Floor ({a}_nearly)
"""

_TAIL = """  planes = Transpose <perm: ints = [0, 3, 1, 2]> (images)
  values = Cast <to: int = 1> (planes)
  x_turned = Transpose <perm: ints = [1, 0]> (x_weights)
  across = MatMul (values, x_turned)
  across_levels = Div (across, x_one)
  across_up = Add (across_levels, half)
  across_bytes = Floor (across_up)
  both = MatMul (y_weights, across_bytes)
  both_levels = Div (both, y_one)
  both_up = Add (both_levels, half)
  resized = Floor (both_up)
  centred = Sub (resized, mean)
  scaled = Div (centred, deviation)
  missing = Sub (whole, fitting)
  pads = Concat <axis: int = 0> (nothing, missing)
  pixels = Pad (scaled, pads)
  bottom = Gather (whole, zero)
  right = Gather (whole, one)
  rows = Range (zero, bottom, one)
  columns = Range (zero, right, one)
  below = GreaterOrEqual (rows, y_new)
  beside = GreaterOrEqual (columns, x_new)
  below_column = Unsqueeze (below, second)
  beside_row = Unsqueeze (beside, first)
  padding = Or (below_column, beside_row)
  shape = Concat <axis: int = 0> (n_images, whole)
  mask = Expand (padding, shape)
}}
"""


def take_photos(path: Path, config: TrainConfig) -> None:
    """Replace a file of `images` and `mask` by one that takes `images` as uint8 [B, H, W, 3], RGB.

    All images of a batch have one size. Boxes stay fractions of the image.

    Raises:
        ExportError: the file has one size, and photos as the student sees them do not fit.
    """
    import onnx

    model = onnx.load(str(path))
    shape = [one.dim_value for one in model.graph.input[0].type.tensor_type.shape.dim]
    canvas = (shape[2], shape[3]) if shape[2] and shape[3] else None
    if canvas is not None:
        check_fits(config, canvas)
    before = _graph(config, canvas)
    seen: dict[str, str] = dict(zip(INPUTS, (_PREFIX + "pixels", _PREFIX + "mask"), strict=True))
    for node in model.graph.node:
        node.input[:] = [seen.get(name, name) for name in node.input]
    nodes = [*before.node, *model.graph.node]
    del model.graph.node[:], model.graph.input[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(before.initializer)
    model.graph.input.extend(before.input)
    if shape[0]:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = shape[0]
    for entry in model.metadata_props:
        if entry.key == CARD:
            entry.value = json.dumps(json.loads(entry.value) | {"input": BYTES})
        elif entry.key == "images":
            entry.value = (
                "RGB, uint8 [batch, height, width, 3], of any size, as photos are: resized and "
                "scaled in the file"
            )
    onnx.checker.check_model(model)
    onnx.save_model(model, str(path))


def check_fits(config: TrainConfig, canvas: tuple[int, int]) -> None:
    """Raises ExportError where photos that stand or lie would not fit a file of one size."""
    side = config.augment.eval_square or config.augment.eval_long_side
    if min(canvas) < side:
        raise ExportError(
            f"--fused-input: the file has one size, {canvas[0]} x {canvas[1]} px, and photos that "
            f"stand and lie are up to {side} px either way: give --size {side}x{side}"
        )


def _graph(config: TrainConfig, canvas: tuple[int, int] | None) -> Any:
    """From bytes to `photo_pixels` and `photo_mask`."""
    from onnx import parser

    augment, pixels = config.augment, config.model.pixels
    head = _HEAD.format(
        step=config.model.side_multiple,
        canvas="{}, {}".format(*(canvas or (0, 0))),
        square=f"{augment.eval_square or 0}, {augment.eval_square or 0}",
        short=augment.eval_short_side,
        long=augment.eval_long_side,
        mean=", ".join(repr(255 * value) for value in pixels.mean),
        deviation=", ".join(repr(255 * value) for value in pixels.deviation),
    )
    target = _SIDES if augment.eval_square is None else _SQUARE
    whole = _FREE if canvas is None else _FIXED
    axes = _AXIS.format(a="y", at="zero") + _AXIS.format(a="x", at="one")
    graph = parser.parse_model(head + target + whole + axes + _TAIL.format()).graph
    for at, node in enumerate(graph.node):
        node.name = f"{_PREFIX}{at}_{node.op_type}"
        node.input[:] = [name if name == INPUTS[0] else _PREFIX + name for name in node.input]
        node.output[:] = [_PREFIX + name for name in node.output]
    used = {name for node in graph.node for name in node.input}
    for one in graph.initializer:
        one.name = _PREFIX + one.name
    kept = [one for one in graph.initializer if one.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return graph


@contextmanager
def photo_pixels(path: Path) -> Iterator[Callable[[Feeds], tuple[np.ndarray, np.ndarray]]]:
    """What makes pixels [B, 3, H, W] and their mask [B, H, W] of photos as the file does, in
    onnxruntime without any optimisation.

    Raises:
        ExportError: onnxruntime cannot run it.
    """
    import onnx

    model = onnx.load(str(path))
    names = [_PREFIX + "pixels", _PREFIX + "mask"]
    del model.graph.output[:]
    for name in names:
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    with tempfile.TemporaryDirectory(prefix="teach-detr-") as folder:
        start = Path(folder) / "start.onnx"
        onnx.save_model(onnx.utils.Extractor(model).extract_model([PHOTOS], names), str(start))
        with Served(REFERENCE, start) as served:

            def pixels(feeds: Feeds) -> tuple[np.ndarray, np.ndarray]:
                found = served.run(feeds)
                return found[names[0]], found[names[1]]

            yield pixels


def photos_apart(path: Path, config: TrainConfig, n_images: int = 1) -> float:
    """How far, in grey levels, the file's pixels lie from those that are made outside, on photos
    that stand, lie, shrink and grow, `n_images` of each at a time.

    Raises:
        ExportError: more than rounding: by more than a grey level, or another size or padding.
    """
    with photo_pixels(path) as pixels:
        worst = max(
            _apart(config, photo, *pixels({PHOTOS: np.repeat(photo[None], n_images, 0)}))
            for photo in made_up_photos()
        )
    if not worst <= _APART:
        raise ExportError(
            f"{path} makes other pixels of photos than the student sees: by {worst:.2g} grey "
            f"levels, allowed is 1"
        )
    return worst


def made_up_photos() -> list[np.ndarray]:
    """Noise over a gradient, [H, W, 3] uint8: lying, standing, large and tiny."""
    generator = np.random.default_rng(0)
    photos = []
    for height, width in ((90, 131), (211, 97), (620, 811), (13, 17)):
        ramp = np.linspace(0, 200, height)[:, None, None] + np.linspace(0, 40, width)[:, None]
        noise = generator.integers(0, 16, (height, width, 3))
        photos.append((ramp + noise).astype(np.uint8))
    return photos


def _apart(
    config: TrainConfig, photo: np.ndarray, every_pixels: np.ndarray, every_mask: np.ndarray
) -> float:
    batch = as_batch([photo], EvalTransform(config.augment), config.model.side_multiple)
    batch = batch.to("cpu", config.model.pixels)
    height, width = batch.images.shape[2:]
    pixels, mask = every_pixels[0], every_mask[0]
    inside = pixels[:, :height, :width]
    if inside.shape[1:] != (height, width):
        return float("inf")
    # a file of one size has more padding
    expected = np.ones_like(mask)
    expected[:height, :width] = batch.mask[0].numpy()
    if (mask != expected).any():
        return float("inf")
    deviation = 255 * np.array(config.model.pixels.deviation)[:, None, None]
    return float((np.abs(inside - batch.images[0].numpy()) * deviation).max())
