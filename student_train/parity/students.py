"""Whole detectors against golden sets: evaluation, a training step, probes that locate errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from student_train.losses import Criterion, LossConfig
from student_train.losses.criterion import PROPOSALS
from student_train.models.denoising import Noise
from student_train.models.dino import Dino, DinoConfig
from student_train.models.official import load_official, official_names
from student_train.models.output import Prediction, StudentOutput
from student_train.models.position import inverse_sigmoid
from student_train.models.queries import Proposals
from student_train.parity.golden import GoldenStudent, probe
from student_train.parity.rows import (
    Row,
    largest_difference,
    relative_difference,
    row,
    wrong_entries,
    wrong_pairs,
)

_BACKBONES = {
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "swin_T_224_1k": "swin_tiny_patch4_window7_224",
    "swin_B_384_22k": "swin_base_patch4_window12_384",
    "swin_L_384_22k": "swin_large_patch4_window12_384",
}
LOGITS, BOXES = 1e-3, 1e-4
LOGITS_FLOAT64, BOXES_FLOAT64 = 1e-5, 1e-6
LOSSES = 1e-4


def dino_config(settings: dict[str, object]) -> DinoConfig:
    """Our configuration of an official DINO settings table."""
    get = settings.__getitem__
    stages: list[int] = get("return_interm_indices")  # type: ignore[assignment]
    return DinoConfig(
        backbone=_BACKBONES[str(get("backbone"))],
        strides=tuple(4 * 2**stage for stage in stages),
        n_classes=int(get("num_classes")),  # type: ignore[call-overload]
        n_queries=int(get("num_queries")),  # type: ignore[call-overload]
        n_levels=int(get("num_feature_levels")),  # type: ignore[call-overload]
        temperature=float(get("pe_temperatureH")),  # type: ignore[arg-type]
        share_heads=bool(get("dec_pred_bbox_embed_share")),
        dn_number=int(get("dn_number")),  # type: ignore[call-overload]
        dn_label_noise=float(get("dn_label_noise_ratio")),  # type: ignore[arg-type]
        dn_box_noise=float(get("dn_box_noise_scale")),  # type: ignore[arg-type]
        attention_backend="torch",
    )


def build(golden: GoldenStudent) -> Dino:
    """The student of a golden set in eval mode, its parameters loaded through the importer."""
    student = Dino(dino_config(golden.settings["config"]))
    load_official(student, golden.parameters())
    return student.eval()


def check_dino(golden: GoldenStudent, double: bool = True) -> list[Row]:
    """All comparisons of a DINO set; `double` adds those in float64, which see finer errors."""
    student = build(golden)
    rows = check_evaluation(golden, student)
    train = check_training(golden, student) if golden.train is not None else []
    if double:
        student = student.double().eval()
        rows += check_float64(golden, student)
        if golden.train is not None:
            train += check_gradients(golden, student, exact=True)
    return rows + train


def check_evaluation(golden: GoldenStudent, student: Dino) -> list[Row]:
    """Outputs of every layer, the proposals, and probes along the way."""
    want, name = golden.outputs, golden.name
    shapes = golden.settings["probe_shapes"]
    probes: dict[str, np.ndarray] = {}
    with torch.no_grad(), _Probes(student, shapes, probes.__setitem__):
        output = student(*golden.batch())
    rows = _compare_layers(name, "", output.layers, want)
    rows += _compare_proposals(name, "", output, want)
    for module, values in probes.items():
        stored = want[f"probe/{module}"].astype(np.float64)
        # errors against the size of the values: activations of a backbone reach tens
        error = largest_difference(values, stored) / max(1.0, float(np.abs(stored).max()))
        rows.append(row(name, f"probe/{module}", error, 1e-3, "relative to the largest value"))
    return rows


def check_float64(golden: GoldenStudent, student: Dino) -> list[Row]:
    """The last layer of a float64 student."""
    images, mask = golden.batch()
    with torch.no_grad():
        last = student(images.double(), mask).last
    name, want = golden.name, golden.outputs
    logits = largest_difference(last.logits, want["float64/pred_logits"])
    boxes = largest_difference(last.boxes, want["float64/pred_boxes"])
    return [
        row(name, "float64/pred_logits", logits, LOGITS_FLOAT64),
        row(name, "float64/pred_boxes", boxes, BOXES_FLOAT64),
    ]


def check_training(golden: GoldenStudent, student: Dino) -> list[Row]:
    """Denoising queries, outputs, losses, matching and gradients of one float32 training step."""
    want = golden.train or {}
    name = f"{golden.name}.train"
    targets, noise = golden.targets(), _noise(golden, student)
    images, mask = golden.batch()
    student.train()
    rows = _compare_denoising(golden, student, noise)

    output = student(images, mask, targets, noise)
    assert output.denoising is not None
    rows += _compare_layers(name, "out/", output.layers, want)
    rows += _compare_layers(name, "out/dn/", output.denoising.layers, want)
    rows += _compare_proposals(name, "out/", output, want)
    rows += _compare_losses(golden, output)
    return rows + check_gradients(golden, student, exact=False)


def check_gradients(golden: GoldenStudent, student: Dino, exact: bool) -> list[Row]:
    """Every parameter's gradient of the total loss.

    `exact` is for a float64 student; in float32 a bilinear kink may move a norm by a per cent.
    """
    want = golden.train or {}
    name = f"{golden.name}.train"
    gradients = _gradients(golden, student.train())
    keys = golden.settings["train"]["grad_keys"]
    rows = [row(name, "grad keys", float(len(set(keys) ^ set(gradients))), 0, "wrong entries")]
    norms, values = want["grad_norm"], want["grad_values"]
    total = float(np.linalg.norm(norms))
    errors, small, sampled = [], [], []
    for key, norm, eight in zip(keys, norms, values, strict=True):
        gradient = gradients.get(key)
        if gradient is None:
            continue
        mine = float(gradient.norm())
        if exact or norm > 1e-4 * total:
            errors.append(relative_difference(mine, norm, 1e-4))
        else:
            small.append(abs(mine - norm) / (1e-4 * total))
        flat = gradient.reshape(-1).double().numpy()
        at = np.linspace(0, flat.size - 1, 8).round().astype(np.int64)
        # a value far below its tensor's norm is what is left of larger ones that cancelled
        allowed = 1e-5 * np.abs(eight) + 1e-9 * max(1.0, norm)
        sampled.append(float((np.abs(flat[at] - eight) / allowed).max()))
    if exact:
        return [
            row(name, "float64/grad_norm", max(errors), 1e-5, "relative"),
            row(name, "float64/grad_values", max(sampled), 1, "1 = 1e-5 |value| + 1e-9 norm"),
        ]
    return [
        *rows,
        row(name, "grad_norm", max(errors), 0.05, "relative, worst parameter"),
        row(name, "grad_norm median", float(np.median(errors)), 2e-3, "relative"),
        row(name, "grad_norm small", max(small, default=0.0), 1, "share of 1e-4 x total norm"),
    ]


def _gradients(golden: GoldenStudent, student: Dino) -> dict[str, Tensor]:
    """Gradients of the total loss by official name."""
    images, mask = golden.batch()
    targets = golden.targets()
    dtype = next(student.parameters()).dtype
    if dtype == torch.float64:
        images = images.double()
        targets = [replace(t, boxes=t.boxes.double(), scores=t.scores.double()) for t in targets]
    student.zero_grad(set_to_none=True)
    criterion = Criterion(LossConfig())
    output = student(images, mask, targets, _noise(golden, student))
    criterion(output, criterion.supervise(targets)).total.backward()
    return {
        official_names(student, key)[0]: parameter.grad
        for key, parameter in student.named_parameters()
        if parameter.grad is not None
    }


def _compare_layers(
    name: str, prefix: str, layers: list[Prediction], want: dict[str, np.ndarray]
) -> list[Row]:
    stems = [f"aux{i}/" for i in range(len(layers) - 1)] + ["pred_"]
    return [
        each
        for stem, prediction in zip(stems, layers, strict=True)
        for each in _compare(name, f"{prefix}{stem}", prediction, want)
    ]


def _compare(
    name: str, prefix: str, prediction: Prediction, want: dict[str, np.ndarray]
) -> list[Row]:
    rows = []
    for kind, tensor, tolerance in (
        ("logits", prediction.logits, LOGITS),
        ("boxes", prediction.boxes, BOXES),
    ):
        stored = want.get(prefix + kind)
        if stored is not None:
            # half precision is stored to locate an error, not to judge one
            allowed = 2e-3 if stored.dtype == np.float16 else tolerance
            rows.append(row(name, prefix + kind, largest_difference(tensor, stored), allowed))
    return rows


def _compare_proposals(
    name: str, prefix: str, output: StudentOutput, want: dict[str, np.ndarray]
) -> list[Row]:
    proposals = output.proposals
    assert isinstance(proposals, Proposals)
    rows = _compare(name, f"{prefix}interm/", proposals, want)
    anchors = largest_difference(proposals.anchors, want[f"{prefix}init/boxes"])
    rows.append(row(name, f"{prefix}init/boxes", anchors, BOXES))
    wrong = wrong_entries(proposals.token_index, want["topk_index"])
    return [*rows, row(name, "topk_index", wrong, 0, "wrong entries")]


def _noise(golden: GoldenStudent, student: Dino) -> Noise:
    """The stored random numbers; official code draws new labels for the flipped entries alone."""
    want = golden.train or {}
    flip = torch.from_numpy(want["noise/0_rand"])
    label = torch.zeros(len(flip), dtype=torch.long)
    flipped = flip < student.config.dn_label_noise * 0.5
    label[flipped] = torch.from_numpy(want["noise/1_randint"])
    sign = torch.from_numpy(want["noise/2_randint"])
    return Noise(flip, label, sign, torch.from_numpy(want["noise/3_rand"]))


def _compare_denoising(golden: GoldenStudent, student: Dino, noise: Noise) -> list[Row]:
    want = golden.train or {}
    name = f"{golden.name}.train"
    n_queries = student.config.n_queries
    noisy = student.denoising(golden.targets(), n_queries, torch.float32, noise)
    assert noisy is not None
    content = noisy.content[..., [0, 1, 2, 3, 4, 5, 6, -1]]
    logits = inverse_sigmoid(noisy.boxes)
    blocked = np.unpackbits(want["dn/attn_mask"], axis=-1, count=noisy.blocked.shape[1])
    label = largest_difference(content, want["dn/input_query_label"])
    # a box at the border comes back from the logit's clamp 1e-3 away
    box = largest_difference(logits, want["dn/input_query_bbox"])
    mask = wrong_entries(noisy.blocked, blocked.astype(bool))
    return [
        row(name, "dn/input_query_label", label, 1e-6),
        row(name, "dn/input_query_bbox", box, 2e-3),
        row(name, "dn/attn_mask", mask, 0, "wrong entries"),
    ]


def _compare_losses(golden: GoldenStudent, output: StudentOutput) -> list[Row]:
    """Losses by their official keys, and the pairs of every matcher call."""
    want, table = golden.train or {}, golden.settings["train"]
    name = f"{golden.name}.train"
    criterion = Criterion(LossConfig())
    supervisions = criterion.supervise(golden.targets())
    losses = criterion(output, supervisions)
    last = len(output.layers) - 1
    official = {"class": "loss_ce", "box": "loss_bbox", "giou": "loss_giou"}
    rows = []
    for part, value in losses.parts.items():
        source, term, layer = part.split("/")
        ending = "_dn" if source == "denoising" else ""
        if layer == "proposals":
            ending = "_interm"
        elif int(layer) < last:
            ending += f"_{layer}"
        key = official[term] + ending
        # the interm losses have the weights of the last layer's
        weight = table["weight_dict"].get(key, table["weight_dict"][official[term]])
        error = relative_difference(float(value), weight * table["losses_float64"][key])
        rows.append(row(name, f"losses/{key}", error, LOSSES, "relative"))
    total = relative_difference(float(losses.total.detach()), table["total_float64"])
    rows.append(row(name, "losses/total", total, LOSSES, "relative"))

    found = criterion.matches(output, supervisions)
    layers = found["truth/decoder layer"]
    # the official matcher is called for the last layer first
    calls = [layers[-1], *layers[:-1], *found[f"truth/{PROPOSALS}"]]
    for call, images in enumerate(calls):
        wrong = sum(
            wrong_pairs(zip(q.tolist(), t.tolist(), strict=True), want[f"match/{call}/{image}"])
            for image, (q, t) in enumerate(images)
        )
        rows.append(row(name, f"match/{call}", float(wrong), 0, "wrong pairs"))
    return rows


class _Probes:
    """While open, describes the output of every probed module by its official name."""

    def __init__(
        self,
        student: Dino,
        shapes: dict[str, list[int]],
        found: Callable[[str, np.ndarray], None],
    ) -> None:
        self._modules = _official_modules(student)
        self._shapes = shapes
        self._found = found
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> None:
        for name, shape in self._shapes.items():
            if name in self._modules:
                hook = self._hook(name, tuple(shape))
                self._handles.append(self._modules[name].register_forward_hook(hook))

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str, shape: tuple[int, ...]) -> Callable[..., None]:
        def describe(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            # the official decoder has queries first, ours the batch
            swap = output.shape != shape and output.transpose(0, 1).shape == shape
            self._found(name, probe(output.transpose(0, 1) if swap else output))

        return describe


def _official_modules(student: Dino) -> dict[str, nn.Module]:
    """Modules by official name, found through the names of their first parameters."""
    modules: dict[str, nn.Module] = {}
    keys = list(student.state_dict())
    for name, module in student.named_modules():
        key = next((k for k in keys if k.startswith(f"{name}.")), None)
        if not name or key is None or key.endswith("num_batches_tracked"):
            continue
        official, ending = official_names(student, key)[0], key.removeprefix(name)
        if official.endswith(ending):
            modules.setdefault(official.removesuffix(ending), module)
    return modules
