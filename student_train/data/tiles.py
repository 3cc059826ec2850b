"""Training on tiles: of a large photo, a random part at the size that its objects have."""

from collections.abc import Sequence

import torch
from torch import Tensor

from box_store.boxes import Boxes
from box_store.tiling.tiles import Window


def random_tile(
    image: Tensor, sources: Sequence[Boxes | None], side: int, draw: torch.Generator
) -> tuple[Tensor, list[Boxes | None]]:
    """A square of `side` pixels anywhere in an image uint8 [3, H, W], and what of the boxes of each
    source lies in it, in its pixels. Of an image that is shorter than that, all of that side.
    """
    height, width = image.shape[-2:]
    top, bottom = _stretch(height, side, draw)
    left, right = _stretch(width, side, draw)
    window = Window(width, height, left, top, right, bottom)
    boxes = [None if each is None else window.from_image(each) for each in sources]
    return image[:, top:bottom, left:right], boxes


def _stretch(length: int, side: int, draw: torch.Generator) -> tuple[int, int]:
    taken = min(length, side)
    start = int(torch.randint(length - taken + 1, (), generator=draw))
    return start, start + taken
