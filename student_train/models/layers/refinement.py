"""What decoders do between two layers: predict, then move the references."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor, nn

from student_train.models.layers.heads import LayerHeads
from student_train.models.layers.position import move_reference
from student_train.models.output import Prediction

Refinement = Literal["none", "detached", "look_forward_twice"]


class Place(NamedTuple):
    """Where queries stand between two layers, [B, Q, 2 or 4] each, of equal value."""

    reference: Tensor
    """where the next layer looks; carries no gradient of earlier layers"""
    start: Tensor
    """what the next layer's boxes are measured from"""


class RefiningDecoder(nn.Module):
    """The part of a decoder that knows heads and references; subclasses have the layers.

    - `refinement`, what the next layer starts from. `none`: the first reference, always.
      `detached`: the box just predicted, without its gradient. `look_forward_twice` (DINO section
      3.5): the same for attention, but the next layer's box is measured from it *with* its
      gradient, so each box head is trained by the next layer's loss too.
    - `norm`: a LayerNorm, shared by all layers, before the heads. Boxes are refined from the raw
      state and predicted from the normed one, as in DINO's and DAB-DETR's code. Without it both
      are the same.
    - `eps` bounds the logits of references, see `inverse_sigmoid`; `box_eps` does where predicted
      boxes are measured from them. By default they are the same, as everywhere but in mmdet.
    """

    def __init__(
        self,
        dim: int,
        n_predictions: int,
        refinement: Refinement,
        norm: bool,
        eps: float,
        box_eps: float | None = None,
    ) -> None:
        super().__init__()
        self.n_predictions = n_predictions
        self.refinement = refinement
        self.eps = eps
        self.box_eps = eps if box_eps is None else box_eps
        self.norm = nn.LayerNorm(dim) if norm else None

    def predict(
        self, state: Tensor, place: Place, heads: LayerHeads, index: int
    ) -> tuple[Prediction, Place]:
        """What pair `index` of the heads says of the queries [B, Q, C], and where they stand
        afterwards.
        """
        dtype = place.start.dtype
        normed = state if self.norm is None else self.norm(state)
        change = heads.locate(index, normed).to(dtype)
        boxes = move_reference(change, place.start, self.box_eps)
        prediction = Prediction(heads.classify(index, normed).to(dtype), boxes)
        if self.refinement == "none" or index == self.n_predictions - 1:
            return prediction, place
        if self.norm is not None:
            change = heads.locate(index, state).to(dtype)
        refined = move_reference(change, place.reference, self.eps)
        detached = refined.detach()
        twice = self.refinement == "look_forward_twice"
        return prediction, Place(detached, refined if twice else detached)
