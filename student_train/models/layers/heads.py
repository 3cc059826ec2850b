"""What turns a query's or token's state into class logits and a box."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

Activation = Callable[[Tensor], Tensor]


class MLP(nn.Module):
    """Linear layers with an activation between them."""

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int,
        out_dim: int,
        n_layers: int,
        activation: Activation = F.relu,
    ) -> None:
        super().__init__()
        self.activation = activation
        widths = [in_dim] + [hidden_dim] * (n_layers - 1) + [out_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_dim] to [..., out_dim]."""
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


def class_head(dim: int, n_classes: int, prior: float = 0.01) -> nn.Linear:
    """A linear layer whose bias makes every class start at probability `prior` (focal loss,
    RetinaNet section 4.1).
    """
    head = nn.Linear(dim, n_classes)
    nn.init.constant_(head.bias, -math.log((1 - prior) / prior))
    return head


def box_head(dim: int, activation: Activation = F.relu, out_dim: int = 4) -> MLP:
    """Three layers to the change of a box, in logit space, or of what else says where a box is; the
    last is zero, so boxes start at their reference.
    """
    head = MLP(dim, dim, out_dim, 3, activation)
    last = head.layers[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return head


class LayerHeads(nn.Module):
    """Class and box heads of the decoder's layers: one pair for all, or a copy per layer.

    DINO shares one pair; detrex and Deformable DETR give every layer its own.
    """

    def __init__(
        self,
        dim: int,
        n_classes: int,
        n_layers: int,
        shared: bool,
        activation: Activation = F.relu,
        box_dim: int = 4,
    ) -> None:
        super().__init__()
        classify, locate = class_head(dim, n_classes), box_head(dim, activation, box_dim)
        copies = 1 if shared else n_layers
        self.classes = nn.ModuleList(copy.deepcopy(classify) for _ in range(copies))
        self.boxes = nn.ModuleList(copy.deepcopy(locate) for _ in range(copies))

    def classify(self, layer: int, state: Tensor) -> Tensor:
        """Class logits [B, Q, n_classes] of decoder layer `layer`."""
        return self.classes[min(layer, len(self.classes) - 1)](state)

    def locate(self, layer: int, state: Tensor) -> Tensor:
        """Box changes [B, Q, 4] in logit space (or what else says where boxes are, [B, Q, box_dim])
        of decoder layer `layer`.
        """
        return self.boxes[min(layer, len(self.boxes) - 1)](state)
