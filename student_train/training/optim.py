"""AdamW with the official parameter groups, the learning rate by step, and a weight average."""

import copy
import math
import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from student_train.config import OptimConfig
from student_train.models import Student
from student_train.models.official import official_names

# linear layers that say where to look: Deformable DETR trains them more slowly
_OFFSET_NAMES = ("sampling_offsets", "reference_points")
_NO_DECAY = "_no_decay"


def parameter_groups(model: Student, config: OptimConfig) -> list[dict[str, object]]:
    """Groups for AdamW, those of `head`, `backbone`, `offsets` that have parameters.

    A backbone rate of 0 freezes the backbone. Parameters that the student lists in
    `no_weight_decay()`, as YOLOS and ViDT do, make groups of their own: `backbone_no_decay`. So do
    those for which it has a depth in `depths()`, if `layer_decay` asks for rates by depth:
    `backbone_3` is three blocks below the ViT's end; and its `decoder`, if `component_decay` does.
    Each group carries `name` and `base_lr` besides `params`, `lr` and `weight_decay`.
    """
    rates = {
        "head": config.lr,
        "backbone": config.backbone_lr * config.component_decay**2,
        "offsets": config.lr * config.offsets_lr_factor,
        "decoder": config.lr * config.component_decay,
    }
    depths = model.depths() if config.layer_decay != 1 else {}
    for depth in sorted(set(depths.values())):
        rates[f"backbone_{depth}"] = rates["backbone"] * config.layer_decay**depth
    undecayed = model.no_weight_decay() | _named(model, config.no_decay)
    members: dict[str, list[nn.Parameter]] = {
        f"{kind}{ending}": [] for ending in ("", _NO_DECAY) for kind in rates
    }
    for name, parameter in model.named_parameters():
        if name.startswith("backbone."):
            if config.backbone_lr == 0:
                parameter.requires_grad_(False)
            kind = f"backbone_{depths[name]}" if name in depths else "backbone"
        elif config.offsets_lr_factor != 1 and any(word in name for word in _OFFSET_NAMES):
            kind = "offsets"
        elif config.component_decay != 1 and name.startswith("decoder."):
            kind = "decoder"
        else:
            kind = "head"
        if parameter.requires_grad:
            members[f"{kind}{_NO_DECAY if name in undecayed else ''}"].append(parameter)
    return [
        {
            "name": name,
            "params": parameters,
            "lr": rates[name.removesuffix(_NO_DECAY)],
            "base_lr": rates[name.removesuffix(_NO_DECAY)],
            "weight_decay": 0.0 if name.endswith(_NO_DECAY) else config.weight_decay,
        }
        for name, parameters in members.items()
        if parameters
    ]


def train_what_moves(model: Student) -> None:
    """Training mode, except for what of the backbone is frozen: that computes what it computes in
    evaluation, so that statistics of batch norms stay too and nothing is dropped.
    """
    model.train()
    _hold_frozen(model.get_submodule("backbone"))


def _hold_frozen(module: nn.Module) -> None:
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        module.eval()
        return
    for child in module.children():
        _hold_frozen(child)


def _named(model: Student, patterns: Iterable[str]) -> set[str]:
    """Our names of the parameters in whose official names one of the patterns is found."""
    found = [re.compile(pattern) for pattern in patterns]
    if not found:
        return set()
    return {
        name
        for name, _ in model.named_parameters()
        if any(each.search(official_names(model, name)[0]) for each in found)
    }


def make_optimizer(model: Student, config: OptimConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`."""
    return torch.optim.AdamW(
        parameter_groups(model, config),
        lr=config.lr,
        weight_decay=config.weight_decay,
        # one kernel for all parameters; elsewhere PyTorch's own choice
        fused=True if device.type == "cuda" else None,
    )


def lr_factor(config: OptimConfig, step: int, steps_per_epoch: int, total_steps: int) -> float:
    """Factor on every base rate at a step counted from 0: no state, so resuming is exact."""
    factor = 1.0
    if config.schedule == "step":
        drops = sum(step >= round(epoch * steps_per_epoch) for epoch in config.drop_epochs)
        factor = config.drop_factor**drops
    elif config.schedule in ("cosine", "flat_cosine"):
        low = config.min_lr / config.lr
        start, end = 0.0, float(total_steps)
        if config.schedule == "flat_cosine":
            start = config.flat_epochs * steps_per_epoch
            end = end if config.cosine_epochs is None else config.cosine_epochs * steps_per_epoch
        progress = min(1.0, max(0.0, step - start) / max(1.0, end - start))
        factor = low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))
    if step < config.warmup_steps:
        factor *= (step + 1) / config.warmup_steps
    return factor


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Set every group's rate to base times factor; the rates by group name."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Scale gradients to a joint norm of at most `limit` (0: leave them); the norm before, 0-d."""
    return nn.utils.clip_grad_norm_(parameters, limit if limit > 0 else math.inf)


class WeightAverage:
    """Moving average of a model's weights: decay * average + (1 - decay) * weights, each step.

    Early on the decay is lower, so that the initial weights fade fast: min(decay, (1 + t) / (10 +
    t)), or decay (1 - e^(-t / ramp)) with t counted from 1.
    """

    def __init__(self, model: Student, decay: float, ramp: float | None = None) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.ramp = decay, ramp
        self.n_updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take one step of the average towards `model`."""
        decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        self.n_updates += 1
        if self.ramp is not None:
            decay = self.decay * (1 - math.exp(-self.n_updates / self.ramp))
        # one launch for all tensors of a kind, where there would be hundreds
        mine: list[Tensor] = list(self.model.parameters())
        theirs: list[Tensor] = list(model.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - decay)  # type: ignore[attr-defined]
        # statistics are averages already: averaged again, they would keep the initial values longer
        copies = list(self.model.buffers())
        if copies:
            torch._foreach_copy_(copies, list(model.buffers()))  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, object]:
        """For `load_state_dict`."""
        return {"model": self.model.state_dict(), "n_updates": self.n_updates}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Continue a saved average."""
        self.model.load_state_dict(state["model"])  # type: ignore[arg-type]
        self.n_updates = int(state["n_updates"])  # type: ignore[call-overload]
