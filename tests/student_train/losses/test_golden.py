"""The losses against the official implementations: every term, every gradient, every pair."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from student_train.losses import Criterion, LossConfig, MatchCost, TeacherLossConfig
from student_train.losses.matcher import match
from student_train.models.output import Denoising, Prediction, StudentOutput
from student_train.models.targets import Targets

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
TERMS = {"class": "loss_ce", "box": "loss_bbox", "giou": "loss_giou"}


@dataclass
class Case:
    """One case of a golden file: predictions, targets, and what is expected of them."""

    arrays: dict[str, np.ndarray]
    expected: dict

    @property
    def kind(self) -> str:
        return self.expected["kind"]

    def layers(self, group: str) -> list[Prediction]:
        found = []
        while f"{group}layer{len(found)}/logits" in self.arrays:
            found.append(self.prediction(f"{group}layer{len(found)}"))
        return found

    def prediction(self, name: str) -> Prediction:
        logits = torch.from_numpy(self.arrays[f"{name}/logits"]).requires_grad_()
        boxes = torch.from_numpy(self.arrays[f"{name}/boxes"]).requires_grad_()
        self.expected.setdefault("inputs", {})[name] = (logits, boxes)
        return Prediction(logits, boxes)

    def targets(self, prefix: str = "") -> list[Targets]:
        found = []
        while f"target{len(found)}/{prefix}labels" in self.arrays:
            name = f"target{len(found)}/{prefix}"
            labels, boxes = (torch.from_numpy(self.arrays[name + k]) for k in ("labels", "boxes"))
            scores = self.arrays.get(f"{name}scores", np.ones(len(labels), np.float32))
            found.append(Targets(labels, boxes, torch.from_numpy(scores)))
        return found

    def check_gradients(self) -> None:
        for name, tensors in self.expected["inputs"].items():
            for kind, tensor in zip(("grad_logits", "grad_boxes"), tensors, strict=True):
                torch.testing.assert_close(
                    torch.zeros_like(tensor) if tensor.grad is None else tensor.grad,
                    torch.from_numpy(self.arrays[f"{name}/{kind}"]),
                    rtol=0,
                    atol=1e-5,
                    msg=lambda text, name=name, kind=kind: f"{name} {kind}: {text}",
                )

    def check_losses(self, parts: dict[str, Tensor], source: str, suffixes: dict, weights) -> None:
        """`suffixes`: ours (layer or proposals) -> the ending of the official key."""
        for layer, suffix in suffixes.items():
            for (term, key), weight in zip(TERMS.items(), weights, strict=True):
                got = parts[f"{source}/{term}/{layer}"].item()
                assert got == pytest.approx(
                    weight * self.expected["losses"][key + suffix], rel=1e-5, abs=1e-6
                ), (source, term, layer)


def read(folder: Path, name: str) -> dict[str, Case]:
    arrays = dict(np.load(folder / f"{name}.npz"))
    cases = {}
    for expected in json.loads((folder / f"{name}.json").read_text())["cases"]:
        prefix = f"{expected['case']}/"
        mine = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        cases[f"{expected['case']}_{expected['kind']}"] = Case(mine, expected)
    return cases


def names(name: str) -> list[str]:
    document = json.loads((GOLDEN / f"{name}.json").read_text())
    return [f"{case['case']}_{case['kind']}" for case in document["cases"]]


def decoder_suffixes(layers: int, ending: str = "") -> dict[str, str]:
    """The last layer's key has no number."""
    numbered = {str(i): f"_{i}{ending}" for i in range(layers - 1)}
    return {**numbered, str(layers - 1): ending}


def pair_set(pairs: tuple[Tensor, Tensor], modulo: int = 10**9) -> set[tuple[int, int]]:
    return {(int(q), int(t) % modulo) for q, t in zip(*pairs, strict=True)}


def golden_pairs(array: np.ndarray) -> set[tuple[int, int]]:
    return {(int(q), int(t)) for q, t in array.T}


def tiled_targets(targets: list[Targets], groups: int, stride: int) -> Denoising:
    """Positive slots: target j of group g sits in slot g * stride + j."""
    image, slot, target = [], [], []
    for group in range(groups):
        for index, each in enumerate(targets):
            image += [index] * len(each)
            slot += [group * stride + j for j in range(len(each))]
            target += range(len(each))
    tensors = (torch.tensor(each, dtype=torch.long) for each in (image, slot, target))
    return Denoising([], *tensors, n_groups=groups, n_slots=groups * stride)


@pytest.mark.parametrize("name", names("criterion_dino"))
def test_dino(name: str) -> None:
    case = read(GOLDEN, "criterion_dino")[name]
    truth = case.targets()
    groups = case.expected["num_dn_group"]
    denoising = tiled_targets(truth, groups, case.expected["pad_size"] // groups)
    denoising.layers = case.layers("dn/")
    output = StudentOutput(
        case.layers("main/"),
        proposals=case.prediction("interm/layer0"),
        proposal_labels="class",
        denoising=denoising,
    )
    criterion = Criterion(LossConfig())
    supervisions = criterion.supervise(truth)
    losses = criterion(output, supervisions)
    losses.total.backward()

    assert losses.total.item() == pytest.approx(case.expected["total"], rel=1e-5)
    weights = (1, 5, 2)
    suffixes = decoder_suffixes(3) | {"proposals": "_interm"}
    case.check_losses(losses.parts, "truth", suffixes, weights)
    dn = {"0": "_dn_0", "1": "_dn_1", "2": "_dn"}
    case.check_losses(losses.parts, "denoising", dn, weights)
    assert len(losses.parts) == 3 * (len(suffixes) + len(dn))
    case.check_gradients()

    # the official matcher is called for the last layer first, then 0, 1, ..., then the proposals
    found = criterion.matches(output, supervisions)
    layers = found["truth/decoder layer"]
    calls = [layers[-1], *layers[:-1], *found["truth/encoder proposals"]]
    for call, images in enumerate(calls):
        for image, pairs in enumerate(images):
            assert pair_set(pairs) == golden_pairs(case.arrays[f"match/{call}/{image}"])


@pytest.mark.parametrize("giou_form", ["weighted", "released"])
@pytest.mark.parametrize("name", names("teach_criterion"))
def test_teacher(name: str, giou_form: str) -> None:
    case = read(GOLDEN, "teach_criterion")[name]
    teacher = case.targets()
    output = StudentOutput(case.layers(""), proposal_labels="binary")
    if "enc/logits" in case.arrays:
        output.proposals = case.prediction("enc")
    criterion = Criterion(
        LossConfig(
            class_loss=2,
            giou_eps=0,
            truth=0,
            denoising=0,
            teacher=TeacherLossConfig.released(giou_form=giou_form),
        )
    )
    supervisions = criterion.supervise([], {"t": teacher})
    losses = criterion(output, supervisions)
    losses.total.backward()
    case.check_gradients()
    suffixes = decoder_suffixes(len(output.layers))
    if output.proposals is not None:
        suffixes |= {"proposals": "_enc"}
    if giou_form == "released":
        case.check_losses(losses.parts, "teacher:t", suffixes, (2, 5, 2))
        assert losses.total.item() == pytest.approx(case.expected["total"], rel=1e-5)

    found = criterion.matches(output, supervisions)
    for layer, images in enumerate(found["teacher:t/decoder layer"]):
        for image, pairs in enumerate(images):
            assert pair_set(pairs) == golden_pairs(case.arrays[f"match/layer{layer}/{image}"])
    if output.proposals is not None:
        for image, pairs in enumerate(found["teacher:t/encoder proposals"][0]):
            assert pair_set(pairs) == golden_pairs(case.arrays[f"match/enc/{image}"])


@pytest.mark.parametrize("name", names("teach_hybrid"))
def test_hybrid_with_teacher(name: str) -> None:
    case = read(GOLDEN, "teach_hybrid")[name]
    expected = case.expected
    output = StudentOutput(
        case.layers("one2one/"),
        proposals=case.prediction("enc"),
        proposal_labels="binary",
        one_to_many=case.layers("one2many/"),
    )
    criterion = Criterion(
        LossConfig(
            class_loss=2,
            giou_eps=0,
            one_to_many=expected["lambda_one2many"],
            repeat=expected["k_one2many"],
            teacher=TeacherLossConfig.released(coefficient=expected["lambda_ensemble"]),
        )
    )
    teachers = {"fused": case.targets("ext_")} if expected["is_ensemble"] else {}
    losses = criterion(output, criterion.supervise(case.targets(), teachers))
    losses.total.backward()

    weights = (2, 5, 2)
    case.check_losses(losses.parts, "truth", decoder_suffixes(3) | {"proposals": "_enc"}, weights)
    many = decoder_suffixes(3, "_one2many")
    case.check_losses(losses.parts, "one_to_many", many, weights)
    if teachers:
        suffixes = decoder_suffixes(3, "_ensemble") | {"proposals": "_enc_ensemble"}
        case.check_losses(losses.parts, "teacher:fused", suffixes, weights)
    assert losses.total.item() == pytest.approx(expected["total"], rel=1e-5)
    case.check_gradients()


def shared_cases(shared: Path, name: str) -> dict[str, Case]:
    return read(shared / "golden", name)


def test_deformable_two_stage(shared: Path) -> None:
    for case in shared_cases(shared, "criterion_deformable").values():
        output = StudentOutput(
            case.layers("main/"),
            proposals=case.prediction("enc/layer0"),
            proposal_labels="binary",
        )
        criterion = Criterion(LossConfig(class_loss=2, giou_eps=0))
        losses = criterion(output, criterion.supervise(case.targets()))
        losses.total.backward()
        suffixes = decoder_suffixes(3) | {"proposals": "_enc"}
        case.check_losses(losses.parts, "truth", suffixes, (2, 5, 2))
        case.check_gradients()


def test_one_to_many(shared: Path) -> None:
    for case in shared_cases(shared, "criterion_hdetr_hybrid").values():
        output = StudentOutput(
            case.layers("main/"),
            proposals=case.prediction("enc/layer0"),
            proposal_labels="binary",
            one_to_many=case.layers("one2many/"),
        )
        config = LossConfig(class_loss=2, giou_eps=0, one_to_many=0.8)
        criterion = Criterion(config)
        losses = criterion(output, criterion.supervise(case.targets()))
        losses.total.backward()
        case.check_losses(losses.parts, "one_to_many", decoder_suffixes(3, "_one2many"), (2, 5, 2))
        case.check_gradients()


def test_denoising_without_negatives(shared: Path) -> None:
    for case in shared_cases(shared, "criterion_dn").values():
        truth = case.targets()
        groups = case.expected["scalar"]
        denoising = tiled_targets(truth, groups, case.expected["pad_size"] // groups)
        denoising.layers = case.layers("dn/")
        output = StudentOutput(case.layers("main/"), denoising=denoising)
        criterion = Criterion(LossConfig(denoising_background=0))
        losses = criterion(output, criterion.supervise(truth))
        losses.total.backward()
        ours = {f"denoising/{term}/2": f"tgt_{key}" for term, key in TERMS.items()}
        for (mine, key), weight in zip(ours.items(), (1, 5, 2), strict=True):
            want = weight * case.expected["losses"][key]
            assert losses.parts[mine].item() == pytest.approx(want, rel=1e-5), mine
        case.check_gradients()


def test_softmax(shared: Path) -> None:
    for case in shared_cases(shared, "criterion_yolos").values():
        truth = case.targets()
        output = StudentOutput(case.layers("main/"), classification="softmax")
        cost = MatchCost(class_cost=1)
        criterion = Criterion(LossConfig(classification="softmax", giou_eps=0, match=cost))
        losses = criterion(output, criterion.supervise(truth))
        losses.total.backward()
        case.check_losses(losses.parts, "truth", {"0": ""}, (1, 5, 2))
        case.check_gradients()
        for image, pairs in enumerate(match(output.last, truth, cost, "softmax")):
            assert pair_set(pairs) == golden_pairs(case.arrays[f"match/0/{image}"])
