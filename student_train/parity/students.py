"""Whole detectors against golden sets: evaluation, a training step, probes that locate errors."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from student_train.losses import Criterion
from student_train.losses.criterion import PROPOSALS, Losses
from student_train.losses.plan import INITIAL
from student_train.models import Student, StudentOutput, build_student
from student_train.models.official import load_official, official_names
from student_train.models.output import stack
from student_train.parity.case import term_stems
from student_train.parity.family import FamilyParity, compare_layers, compare_prediction
from student_train.parity.golden import GoldenStudent, probe
from student_train.parity.rows import (
    Row,
    largest_difference,
    relative_difference,
    row,
    wrong_pairs,
)

LOGITS_FLOAT64, BOXES_FLOAT64 = 1e-5, 1e-6
LOSSES, LOSSES_FLOAT64 = 1e-4, 1e-6

Pairs = tuple[Tensor, Tensor]
"""query indices and target indices of one image"""


def build(golden: GoldenStudent, family: FamilyParity) -> Student:
    """The student of a golden set in eval mode, its parameters loaded through the importer."""
    student = build_student(family.config(golden.settings))
    load_official(student, golden.parameters())
    return student.eval()


def check_student(golden: GoldenStudent, family: FamilyParity, double: bool = True) -> list[Row]:
    """All comparisons of a set; `double` adds those in float64, which see finer errors."""
    student = build(golden, family)
    # training moves the statistics of batch norms, so that the other one is kept apart
    doubled = copy.deepcopy(student).double() if double else student
    rows = check_evaluation(golden, family, student)
    train = check_training(golden, family, student) if golden.train is not None else []
    if double:
        rows += check_float64(golden, doubled)
        if golden.train is not None:
            train += check_gradients(golden, family, doubled, exact=True)
    return rows + train


def check_evaluation(golden: GoldenStudent, family: FamilyParity, student: Student) -> list[Row]:
    """Outputs of every layer, the proposals, and probes along the way."""
    want, name = golden.outputs, golden.name
    shapes = golden.settings["probe_shapes"]
    probes: dict[str, np.ndarray] = {}
    with torch.no_grad(), _Probes(student, shapes, family, probes.__setitem__):
        output = student(*golden.batch())
    rows = compare_layers(name, "", output.layers, want)
    rows += family.proposals(name, "", output, want)
    for module, values in probes.items():
        stored = want[f"probe/{module}"].astype(np.float64)
        # errors against the size of the values: activations of a backbone reach tens
        error = largest_difference(values, stored) / max(1.0, float(np.abs(stored).max()))
        rows.append(row(name, f"probe/{module}", error, 1e-3, "relative to the largest value"))
    return rows + family.evaluation(golden, student)


def check_float64(golden: GoldenStudent, student: Student) -> list[Row]:
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


def check_training(golden: GoldenStudent, family: FamilyParity, student: Student) -> list[Row]:
    """Denoising queries, outputs, losses, matching and gradients of one float32 training step."""
    want = golden.train or {}
    name = f"{golden.name}.train"
    targets, noise = golden.targets(), family.noise(golden, student)
    images, mask = golden.batch()
    student.train()
    rows = family.denoising(golden, student, noise)

    output = student(images, mask, targets, noise)
    rows += compare_layers(name, "out/", output.layers, want)
    if output.denoising is not None:
        noisy = output.denoising.layers
        rows += compare_layers(name, "out/dn/", noisy, want)
        rows += compare_prediction(name, "out/dn/all_", stack(noisy), want)
    if output.one_to_many is not None:
        rows += compare_layers(name, "out/one2many/", output.one_to_many, want)
    rows += family.proposals(name, "out/", output, want)
    rows += _compare_statistics(golden, student)
    rows += _compare_losses(golden, family, output)
    return rows + check_gradients(golden, family, student, exact=False)


def _compare_statistics(golden: GoldenStudent, student: Student) -> list[Row]:
    """Statistics of the trained batch norms after one batch, where a set has them."""
    want = (golden.train or {}).get("running_norm")
    if want is None:
        return []
    buffers = {
        official_names(student, k)[0]: v for k, v in student.named_buffers() if "num_" not in k
    }
    errors = [
        relative_difference(float(buffers[key].norm()), norm) if key in buffers else math.inf
        for key, norm in zip(golden.settings["train"]["running_keys"], want, strict=True)
    ]
    name = f"{golden.name}.train"
    return [row(name, "running_norm", max(errors, default=0.0), 1e-4, "relative, worst buffer")]


def check_gradients(
    golden: GoldenStudent, family: FamilyParity, student: Student, exact: bool
) -> list[Row]:
    """Every parameter's gradient of the total loss.

    `exact` is for a float64 student; in float32 a bilinear kink may move a norm by a per cent.
    """
    want = golden.train or {}
    name = f"{golden.name}.train"
    gradients, worst = _gradients(golden, family, student.train())
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
        allowed = 1e-5 * np.abs(eight) + family.rounding * max(1.0, norm)
        sampled.append(float((np.abs(flat[at] - eight) / allowed).max()))
    if exact:
        return [
            row(name, "float64/losses", worst, LOSSES_FLOAT64, "relative, worst term"),
            row(name, "float64/grad_norm", max(errors), 1e-5, "relative"),
            row(
                name,
                "float64/grad_values",
                max(sampled),
                1,
                f"1 = 1e-5 |value| + {family.rounding:g} norm",
            ),
        ]
    # sets that say how far float32 is off by itself allow a few times that
    known = want.get("grad_rel_err_float32", np.zeros(1))
    worst_norm, median = max(0.05, 3 * float(known.max())), max(2e-3, 3 * float(np.median(known)))
    return [
        *rows,
        row(name, "grad_norm", max(errors), worst_norm, "relative, worst parameter"),
        row(name, "grad_norm median", float(np.median(errors)), median, "relative"),
        row(name, "grad_norm small", max(small, default=0.0), 1, "share of 1e-4 x total norm"),
    ]


def _gradients(
    golden: GoldenStudent, family: FamilyParity, student: Student
) -> tuple[dict[str, Tensor], float]:
    """Gradients of the total loss by official name, and the largest relative error of a term."""
    images, mask = golden.batch()
    targets = golden.targets()
    dtype = next(student.parameters()).dtype
    if dtype == torch.float64:
        images = images.double()
        targets = [replace(t, boxes=t.boxes.double(), scores=t.scores.double()) for t in targets]
    student.zero_grad(set_to_none=True)
    criterion = Criterion(family.loss_of(golden.settings))
    output = student(images, mask, targets, family.noise(golden, student))
    losses = criterion(output, criterion.supervise(targets))
    losses.total.backward()
    gradients = {
        official_names(student, key)[0]: parameter.grad
        for key, parameter in student.named_parameters()
        if parameter.grad is not None
    }
    return gradients, max(_loss_errors(golden, family, output, losses).values())


def _compare_losses(
    golden: GoldenStudent, family: FamilyParity, output: StudentOutput
) -> list[Row]:
    """Losses by their official keys, and the pairs of every matcher call."""
    table = golden.settings["train"]
    name = f"{golden.name}.train"
    criterion = Criterion(family.loss_of(golden.settings))
    supervisions = criterion.supervise(golden.targets())
    losses = criterion(output, supervisions)
    rows = [
        row(name, f"losses/{key}", error, LOSSES, "relative")
        for key, error in _loss_errors(golden, family, output, losses).items()
    ]
    total = relative_difference(float(losses.total.detach()), table["total_float64"])
    rows.append(row(name, "losses/total", total, LOSSES, "relative"))
    rows += _compare_matches(golden, criterion.matches(output, supervisions))
    if criterion.config.pairs == "union":
        rows += _compare_unions(golden, criterion.unions(output, supervisions)["truth"])
    return rows


def _loss_errors(
    golden: GoldenStudent, family: FamilyParity, output: StudentOutput, losses: Losses
) -> dict[str, float]:
    """Relative errors by official key; a key that only one side has is infinitely wrong."""
    table, last = golden.settings["train"], len(output.layers) - 1
    stems = term_stems(golden.settings)
    # what one code logs as nothing, the other may leave out
    errors = {key: math.inf if want else 0.0 for key, want in table["losses_float64"].items()}
    for part, value in losses.parts.items():
        source, term, layer = part.split("/")
        key = family.loss_key(stems[term], source, layer, last)
        weight = 1.0
        if not table.get("weighted"):
            # losses of proposals have the weights of the last layer's
            weight = table["weight_dict"].get(key, table["weight_dict"][stems[term]])
        want = table["losses_float64"].get(key, math.inf)
        errors[key] = relative_difference(float(value), weight * want)
    return {key: error for key, error in errors.items() if _is_loss(key, stems)}


def _is_loss(key: str, stems: Mapping[str, str]) -> bool:
    """Official code logs counts among the losses, which nothing is trained by."""
    return any(stem in key for stem in stems.values())


def _compare_matches(golden: GoldenStudent, found: Mapping[str, list[list[Pairs]]]) -> list[Row]:
    """The pairs of every matcher call: decoder layers, the last one first, then the initial
    prediction, the encoder's proposals, and the one-to-many queries' layers.
    """
    want, name = golden.train or {}, f"{golden.name}.train"
    layers, many = found["truth/decoder layer"], found.get("one_to_many/one-to-many layer", [])
    first, proposed = (found.get(f"truth/{each}", []) for each in (INITIAL, PROPOSALS))
    calls = [layers[-1], *layers[:-1], *first, *proposed, *many[-1:], *many[:-1]]
    counts = golden.settings["train"]["targets"]["counts"]
    rows = []
    for call, images in enumerate(calls):
        wrong = 0
        for image, (query, target) in enumerate(images):
            # copies of one target cost the same: which of them a query got is up to the solver
            queries, targets = want[f"match/{call}/{image}"]
            count = max(counts[image], 1)
            mine = zip(query.tolist(), (target % count).tolist(), strict=True)
            wrong += wrong_pairs(mine, np.stack((queries, targets % count)))
        rows.append(row(name, f"match/{call}", float(wrong), 0, "wrong pairs"))
    return rows


def _compare_unions(golden: GoldenStudent, found: Sequence[Pairs]) -> list[Row]:
    """The pairs that all layers share."""
    want, wrong = golden.train or {}, 0
    for image, (query, target) in enumerate(found):
        mine = zip(query.tolist(), target.tolist(), strict=True)
        wrong += wrong_pairs(mine, want[f"union/{image}"])
    return [row(f"{golden.name}.train", "union", float(wrong), 0, "wrong pairs")]


class _Probes:
    """While open, describes the output of every probed module by its official name; NAME#2 is the
    second call."""

    def __init__(
        self,
        student: Student,
        shapes: dict[str, list[int]],
        family: FamilyParity,
        found: Callable[[str, np.ndarray], None],
    ) -> None:
        self._modules = _official_modules(student)
        self._modules |= {k: student.get_submodule(v) for k, v in family.modules.items()}
        self._shapes = shapes
        self._found = found
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> None:
        for name in self._shapes:
            if name in self._modules:
                self._handles.append(self._modules[name].register_forward_hook(self._hook(name)))

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str) -> Callable[..., None]:
        calls = itertools.count(1)

        def describe(_module: nn.Module, _inputs: object, output: object) -> None:
            call = next(calls)
            key = name if call == 1 else f"{name}#{call}"
            if key not in self._shapes or not isinstance(output, Tensor):
                return
            self._found(key, probe(_arranged(output, tuple(self._shapes[key]))))

        return describe


def _arranged(output: Tensor, shape: tuple[int, ...]) -> Tensor:
    """An output in the official order: its decoder has queries first, where ours has the batch;
    patches are a list there, or have the channels last, where ours are a map; and windows stay
    apart there, where ours are one sequence an image.
    """
    orders = [output, output.transpose(0, 1)]
    if output.ndim == 4:
        orders += [output.flatten(2).mT, output.movedim(1, -1)]
    if output.numel() == math.prod(shape) and output.shape[-1:] == shape[-1:]:
        orders.append(output.reshape(shape))
    return next((x for x in orders if x.shape == shape), output)


def _official_modules(student: Student) -> dict[str, nn.Module]:
    """Modules by official name, found through the names of their parameters: the first of them that
    is called the same inside the module.
    """
    modules: dict[str, nn.Module] = {}
    keys = list(student.state_dict())
    for name, module in student.named_modules():
        for key in keys:
            if not name or not key.startswith(f"{name}.") or key.endswith("num_batches_tracked"):
                continue
            official, ending = official_names(student, key)[0], key.removeprefix(name)
            if official.endswith(ending):
                modules.setdefault(official.removesuffix(ending), module)
                break
    return modules
