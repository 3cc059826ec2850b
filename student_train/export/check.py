"""Whether two programs detect the same: each detection is looked for among the other's."""

from collections.abc import Callable

import torch
from torch import Tensor

from student_train.export.program import Example

Run = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""images and mask to scores, labels and boxes"""


def largest_difference(reference: Run, other: Run, example: Example) -> float:
    """The largest difference of a score, or of a box side in image sides, over all detections.

    Detections are paired by label: programs that round differently may order near ties otherwise.
    The last of the k may be cut off differently, so a detection whose score ties with the lowest
    counts by score alone.
    """
    with torch.inference_mode():
        expected = reference(example.images, example.mask)
        found = other(example.images, example.mask)
    worst = 0.0
    for mine, theirs in zip(zip(*expected, strict=True), zip(*found, strict=True), strict=True):
        worst = max(worst, _difference(mine, theirs))
    return worst


def _difference(
    mine: tuple[Tensor, Tensor, Tensor], theirs: tuple[Tensor, Tensor, Tensor]
) -> float:
    scores, labels, boxes = (x.double() for x in mine)
    other_scores, other_labels, other_boxes = (x.double() for x in theirs)
    ranked = float((scores - other_scores).abs().max())
    apart = torch.maximum(
        (scores[:, None] - other_scores).abs(),
        (boxes[:, None] - other_boxes).abs().amax(-1),
    )
    apart = apart.masked_fill(labels[:, None] != other_labels, torch.inf)
    above_the_cut = scores > scores[-1] + 1e-6
    if not above_the_cut.any():
        return ranked
    return max(ranked, float(apart.amin(1)[above_the_cut].max()))
