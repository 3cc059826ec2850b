"""The losses alone against golden sets, on random predictions: terms, gradients, matching."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from student_train.parity.case import Case, Setup, term_stems
from student_train.parity.golden import read_arrays, read_json
from student_train.parity.rows import Row, relative_difference, row, wrong_pairs

LOSSES, GRADIENTS = 1e-5, 1e-5


def check_criterion(folder: Path, name: str, setup_case: Callable[[Case], Setup]) -> list[Row]:
    """Every case of one set of losses, put to our criterion by `setup_case`."""
    arrays, document = read_arrays(folder / f"{name}.npz"), read_json(folder / f"{name}.json")
    weights = document.get("weight_dict", {"loss_ce": 2, "loss_bbox": 5, "loss_giou": 2})
    if "loss" in document and "weight_dict" not in document:
        # those that say their weights there have applied them
        weights = dict.fromkeys(term_stems(document).values(), 1.0)
    rows: list[Row] = []
    for expected in document["cases"]:
        prefix = f"{expected['case']}/"
        mine = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        case = Case(mine, expected, document, weights)
        rows += _check_case(name, case, setup_case(case))
    return rows


def _check_case(name: str, case: Case, setup: Setup) -> list[Row]:
    label, kind = case.expected["case"], case.expected["kind"]
    losses = setup.criterion(setup.output, setup.supervisions)
    losses.total.backward()
    rows = []
    for source, keys in setup.keys.items():
        error = case.loss_error(losses, source, keys)
        rows.append(row(name, f"{label}/losses/{source}", error, LOSSES, f"{kind}; relative"))
    total = relative_difference(float(losses.total.detach()), case.expected["total"])
    rows.append(row(name, f"{label}/losses/total", total, LOSSES, f"{kind}; relative"))
    rows.append(row(name, f"{label}/gradients", case.gradient_error(), GRADIENTS, kind))
    if setup.calls:
        found = setup.criterion.matches(setup.output, setup.supervisions)
        wrong = 0
        for stored, (stack, layer) in setup.calls.items():
            for image, (query, target) in enumerate(found[stack][layer]):
                count = max(1, len(case.arrays[f"target{image}/labels"]))
                pairs = zip(query.tolist(), (target % count).tolist(), strict=True)
                queries, targets = case.arrays[f"{stored}/{image}"]
                # copies of a target tie exactly: which of them is matched does not matter
                wrong += wrong_pairs(pairs, np.stack((queries, targets % count)))
        rows.append(row(name, f"{label}/matching", float(wrong), 0, f"{kind}; wrong pairs"))
    if setup.criterion.config.pairs == "union":
        wrong = 0
        unions = setup.criterion.unions(setup.output, setup.supervisions)["truth"]
        for image, (query, target) in enumerate(unions):
            mine = zip(query.tolist(), target.tolist(), strict=True)
            wrong += wrong_pairs(mine, case.arrays[f"union/{image}"])
        rows.append(row(name, f"{label}/union", float(wrong), 0, f"{kind}; wrong pairs"))
    return rows
