"""Parity of D-FINE and DEIM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from student_train.losses import Criterion, LossConfig
from student_train.losses.matcher import Match
from student_train.losses.plan import INITIAL, Stack
from student_train.models.families.d_fine.model import DFine, DFineConfig
from student_train.models.families.d_fine.names import settings_from_shapes
from student_train.models.layers.edge_distribution import bin_distances
from student_train.models.output import (
    Denoising,
    EdgeDistributions,
    Prediction,
    StudentOutput,
)
from student_train.parity.case import Case, Setup
from student_train.parity.family import (
    Arrays,
    FamilyParity,
    Settings,
    chosen_proposals,
    compare_layers,
    compare_prediction,
)
from student_train.parity.golden import GoldenStudent
from student_train.parity.hybrid import (
    HYBRID_MODULES,
    hybrid_criterion,
    hybrid_denoising,
    hybrid_evaluation,
    hybrid_key,
    hybrid_loss,
    hybrid_noise,
)
from student_train.parity.rows import Row, largest_difference, row

_CORNERS, _HALF, _REFERENCE = 2e-3, 3e-3, 1e-4


def _config(settings: Settings) -> DFineConfig:
    """Sizes as the shapes say them, as for a file; the rest as the set says it."""
    official = settings["config"]
    shapes = {
        key: torch.zeros(shape) for key, shape, dtype, *_ in settings["keys"] if dtype == "float32"
    }
    return DFineConfig(
        **settings_from_shapes(shapes)
        | {
            "n_queries": official["num_queries"],
            "activation": official["act"],
            "reg_scale": official["reg_scale"],
            "norm": "frozen" if official.get("freeze_norm") else "batch",
            "frozen_stem": official["freeze_at"] >= 0,
            "dn_number": official["num_denoising"],
            "dn_label_noise": official["label_noise_ratio"],
            "dn_box_noise": official["box_noise_scale"],
            "attention_backend": "torch",
        }
    )


def _loss(settings: Settings) -> LossConfig:
    weights = settings["loss"]["weight_dict"]
    return replace(
        hybrid_loss(settings),
        pairs="union",
        fgl_loss=weights["loss_fgl"],
        ddf_loss=weights["loss_ddf"],
    )


def _key(stem: str, source: str, layer: str, last: int) -> str:
    if layer == "initial":
        return f"{stem}_{'dn_' if source == 'denoising' else ''}pre"
    return hybrid_key(stem, source, layer, last)


def _distributions(
    name: str,
    prefix: str,
    initial: Prediction | None,
    edges: EdgeDistributions | None,
    want: Arrays,
) -> list[Row]:
    """The initial boxes, and what all layers say of their edges."""
    assert edges is not None
    rows = []
    if initial is not None:
        rows += compare_prediction(name, f"{prefix}pre/", initial, want)
    error = largest_difference(edges.reference, want[f"{prefix}ref_initial"])
    rows.append(row(name, f"{prefix}ref_initial", error, _REFERENCE))
    first = 0 if initial is not None else _last(want, f"{prefix}corners")
    for layer, logits in enumerate(edges.logits, first):
        stored = want[f"{prefix}corners{layer}"]
        allowed = _HALF if stored.dtype == np.float16 else _CORNERS
        # errors of half precision grow with the values
        largest = max(1.0, float(np.abs(stored).max()) / 8)
        error = largest_difference(logits.flatten(2), stored) / largest
        rows.append(row(name, f"{prefix}corners{layer}", error, allowed))
    return rows


def _last(want: Arrays, stem: str) -> int:
    return max(int(key.removeprefix(stem)) for key in want if key.startswith(stem))


def _proposals(name: str, prefix: str, output: StudentOutput, want: Arrays) -> list[Row]:
    """Whatever an output has beside its layers."""
    rows = chosen_proposals(name, prefix, output, want)
    rows += _distributions(name, prefix, output.initial, output.edges, want)
    noisy = output.denoising
    if noisy is not None:
        rows += _distributions(name, f"{prefix}dn/", noisy.initial, noisy.edges, want)
    return rows


def _evaluation(golden: GoldenStudent, student: DFine) -> list[Row]:
    """Every layer, of which evaluation uses the last alone; and logits before the boxes' quality is
    added."""
    want, name = golden.outputs, golden.name
    heads: dict[int, torch.Tensor] = {}

    def keep(layer: int):
        return lambda _module, _inputs, output: heads.__setitem__(layer, output)

    handles = [
        head.register_forward_hook(keep(layer)) for layer, head in enumerate(student.heads.classes)
    ]
    student.every_layer = True
    with torch.no_grad():
        output = student(*golden.batch())
    student.every_layer = False
    for handle in handles:
        handle.remove()
    rows = compare_layers(name, "", output.layers, want)
    rows += _distributions(name, "", output.initial, output.edges, want)
    for layer, logits in heads.items():
        error = largest_difference(logits, want[f"head{layer}/logits"])
        rows.append(row(name, f"head{layer}/logits", error, _HALF))
    return [*rows, *hybrid_evaluation(golden, student)]


class _StoredUnion(Criterion):
    """Takes the pairs that layers share from a set: where layers disagree, the official code leaves
    them to an unstable sort.
    """

    def __init__(self, config: LossConfig, arrays: Arrays):
        super().__init__(config)
        self._arrays = arrays

    def _unions(
        self, stacks: Sequence[Stack], found: Sequence[Sequence[Match]]
    ) -> dict[str, Match]:
        images = range(stacks[0].shape[1])
        columns = [
            np.concatenate([np.full((1, each.shape[1]), image), each])
            for image, each in ((image, self._arrays[f"union/{image}"]) for image in images)
        ]
        image, query, target = np.concatenate(columns, 1)
        return {"truth": Match(image, query[None], target[None])}


def _criterion(case: Case) -> Setup:
    """What RT-DETR's losses have, initial predictions, and distributions of edges."""
    setup = hybrid_criterion(case)
    arrays, output = case.arrays, setup.output
    last = len(output.layers) - 1
    output = replace(output, initial=case.prediction("pre/layer0"), edges=_edges(case, "main", ""))
    keys = {"truth": setup.keys["truth"] | {"initial": "{}_pre"}}
    if output.denoising is not None:
        initial, edges = case.prediction("dn_pre/layer0"), _edges(case, "dn", "dn/")
        output.denoising = _with(output.denoising, initial, edges)
        keys["denoising"] = setup.keys["denoising"] | {"initial": "{}_dn_pre"}
    config = _loss(case.settings)
    ambiguous = case.expected["ambiguous_in_union"]
    criterion = _StoredUnion(config, arrays) if ambiguous else Criterion(config)
    # the encoder's proposals are matched after the initial boxes
    calls = {
        stored: place for stored, place in setup.calls.items() if place[0] == "truth/decoder layer"
    }
    calls[f"match/{last + 1}"] = (f"truth/{INITIAL}", 0)
    calls[f"match/{last + 2}"] = setup.calls[f"match/{last + 1}"]
    return replace(
        setup,
        criterion=criterion,
        output=output,
        supervisions=criterion.supervise(case.targets()),
        keys=keys,
        calls=calls,
    )


def _with(noisy: Denoising, initial: Prediction, edges: EdgeDistributions) -> Denoising:
    return replace(noisy, initial=initial, edges=edges)


def _edges(case: Case, group: str, prefix: str) -> EdgeDistributions:
    """Distributions of a group's layers, as leaves."""
    scale = torch.tensor(case.settings["reg_scale"])
    layers = []
    while f"{group}/layer{len(layers)}/corners" in case.arrays:
        layers.append(case.leaf(f"{group}/layer{len(layers)}", "corners").unflatten(-1, (4, -1)))
    reference = torch.from_numpy(case.arrays[f"{prefix}ref_initial"])
    up = torch.tensor(case.settings.get("up", 0.5))
    distances = bin_distances(layers[0].shape[-1] - 1, up, scale)
    return EdgeDistributions(layers, reference, distances, scale)


PARITY = FamilyParity(
    sets=("dfine",),
    criteria={"criterion_dfine": _criterion, "criterion_deim": _criterion},
    config=_config,
    loss=_loss,
    loss_key=_key,
    noise=hybrid_noise,
    denoising=hybrid_denoising,
    proposals=_proposals,
    evaluation=_evaluation,
    modules={
        **HYBRID_MODULES,
        "encoder.downsample_convs.0": "encoder.downsamples.0",
        "backbone.stem": "backbone.body.stem",
        **{f"backbone.stages.{i}": f"backbone.body.stages_{i}" for i in range(4)},
    },
    # it divides by the numbers of points in float32 (`num_points_scale`), which batch statistics
    # amplify; with that quotient losses agree to 3e-15 and gradients to 1e-9
    rounding=1e-8,
)
