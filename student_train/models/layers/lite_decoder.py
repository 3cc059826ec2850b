"""The decoder of LW-DETR and RF-DETR: references stay where they are."""

from __future__ import annotations

from torch import Tensor, nn

from student_train.models.layers.decoder import DeformableDecoderLayer, references_on_levels
from student_train.models.layers.encoder import LayerSizes, Levels
from student_train.models.layers.group_queries import move_box
from student_train.models.layers.heads import MLP, LayerHeads
from student_train.models.layers.position import sine_boxes
from student_train.models.layers.recompute import run_layer
from student_train.models.output import Prediction


class LiteDecoder(nn.Module):
    """Deformable layers over queries whose position is read off their boxes once, before the first
    (`lite_refpoint_refine` in the official code). Each layer predicts from the same references; one
    norm stands before the heads.
    """

    def __init__(
        self,
        n_layers: int,
        sizes: LayerSizes,
        n_self_heads: int,
        checkpointing: bool = False,
    ) -> None:
        """The heads of `sizes` are those of the deformable attention."""
        super().__init__()
        dim = self.dim = sizes.dim
        self.checkpointing = checkpointing
        self.layers = nn.ModuleList(
            DeformableDecoderLayer(sizes, n_self_heads=n_self_heads) for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.query_position = MLP(2 * dim, dim, dim, 2)

    def forward(
        self,
        content: Tensor,
        reference: Tensor,
        memory: Tensor,
        levels: Levels,
        heads: LayerHeads,
        groups: int,
    ) -> list[Prediction]:
        """Predictions of every layer, first to last.

        `content` is [B, Q, C], `reference` [B, Q, 4] (cx, cy, w, h) in 0..1 of the valid image,
        `memory` [B, S, C]; the queries are of so many `groups`, which do not see each other.
        """
        on_levels = references_on_levels(reference, levels)
        encoded = sine_boxes(on_levels[:, :, 0], self.dim).to(content.dtype)
        position = self.query_position(encoded)
        state, predictions = content, []
        for index, layer in enumerate(self.layers):
            inputs = (state, position, on_levels, memory, levels, None, groups)
            state = run_layer(layer, self.checkpointing, *inputs)
            normed = self.norm(state)
            change = heads.locate(index, normed).to(reference.dtype)
            logits = heads.classify(index, normed).to(reference.dtype)
            predictions.append(Prediction(logits, move_box(change, reference)))
        return predictions
