"""`optim.*`: the optimiser, its groups of parameters, and the learning rate's schedule."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with the official parameter groups, clipping, and the learning rate's schedule."""

    lr: float = 1e-4
    """Learning rate of everything but the backbone."""
    backbone_lr: float = 1e-5
    """Learning rate of the backbone; 0 freezes it."""
    offsets_lr_factor: float = 1.0
    """Factor on the learning rate of sampling offsets and reference points (official Deformable
    DETR: 0.1; DINO: 1).
    """
    component_decay: float = 1.0
    """LW-DETR, RF-DETR: factor on the learning rate of the decoder, and squared on the backbone's.
    """
    layer_decay: float = 1.0
    """LW-DETR, RF-DETR: factor on the learning rate from each block of the ViT to the one before.
    """
    weight_decay: float = 1e-4
    """Decoupled weight decay."""
    clip: float = 0.1
    """Largest norm of the gradient of all parameters; 0 does not clip."""
    schedule: Literal["step", "cosine", "flat_cosine", "constant"] = "step"
    """step: times drop_factor at each of drop_epochs; cosine: to min_lr at the last step;
    flat_cosine: the same between flat_epochs and cosine_epochs (DEIM).
    """
    flat_epochs: float = 0.0
    """flat_cosine: epochs before the learning rate falls."""
    cosine_epochs: float | None = None
    """flat_cosine: epochs after which it has reached min_lr; none: at the last step."""
    drop_epochs: tuple[float, ...] = (11,)
    """Epochs after which the learning rate drops (may be fractions)."""
    drop_factor: float = 0.1
    """Factor of each drop."""
    min_lr: float = 0.0
    """Learning rate at the end of the cosine."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from 0."""
    no_decay: tuple[str, ...] = ()
    """Regular expressions: a parameter is not decayed where one of them is found in its official
    name, beside those that the student exempts (RT-DETR and D-FINE have such lists).
    """
    accumulate: int = 1
    """Parts that each batch is split into to save memory; gradients are averaged over the parts."""
    ema: float | None = None
    """Decay of an average of the weights, which is evaluated and saved as best (DINO: 0.9997)."""
    restart_epoch: float | None = None
    """Epochs after which training goes on from the best weights so far, once (D-FINE, DEIM: where
    the strong augmentation ends); none: never.
    """
    restart_ema: float | None = None
    """The average's decay from there on; none: as before."""
    ema_ramp: float | None = None
    """Steps t0 over which that decay rises from 0, as 1 - e^(-t / t0) (RF-DETR: 100); none: as
    (1 + t) / (10 + t).
    """

    def problems(self) -> Iterator[str]:
        """What makes these settings unusable, a sentence each."""
        if self.accumulate < 1:
            yield f"optim.accumulate must be at least 1, got {self.accumulate}"
        if not self.lr > 0:
            yield f"optim.lr must be above 0, got {self.lr}"
        for key in ("backbone_lr", "clip"):
            value = getattr(self, key)
            if not value >= 0:
                yield f"optim.{key} must not be negative, got {value}"
        if self.ema is not None and not 0 < self.ema < 1:
            yield f"optim.ema must lie in 0..1, got {self.ema}"
        for key in ("component_decay", "layer_decay"):
            value = getattr(self, key)
            if not 0 < value <= 1:
                yield f"optim.{key} must lie in 0..1, above 0, got {value}"
        if not 0 <= self.flat_epochs <= (self.cosine_epochs or self.flat_epochs):
            yield (
                f"optim.cosine_epochs must not be less than optim.flat_epochs={self.flat_epochs}, "
                f"got {self.cosine_epochs}"
            )
        if self.restart_ema is not None and not 0 < self.restart_ema < 1:
            yield f"optim.restart_ema must lie in 0..1, got {self.restart_ema}"
        for pattern in self.no_decay:
            if not is_pattern(pattern):
                yield f"optim.no_decay: {pattern!r} is no regular expression"
        if self.ema_ramp is not None and not self.ema_ramp > 0:
            yield f"optim.ema_ramp must be above 0, got {self.ema_ramp}"


def is_pattern(text: str) -> bool:
    """Whether a text is a regular expression."""
    try:
        re.compile(text)
    except re.error:
        return False
    return True
