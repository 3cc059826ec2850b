"""Fitting a teacher's score map to ground truth, and judging it on images held out.

Which boxes are right says `judging` beside this file. Isotonic regression (pool adjacent violators;
Zadrozny and Elkan, KDD 2002) follows any monotone shape and wants some hundreds of boxes; a
temperature (Guo et al., ICML 2017) has one number and does with few.
"""

import numpy as np
from numpy.typing import NDArray

from box_store.calibration.judging import Judged, judge
from box_store.calibration.reliability import brier_score, calibration_error, reliability
from box_store.calibration.score_map import Calibration, Method, Part, Quality, ScoreMap, logits
from box_store.coco.annotations import CocoData
from box_store.errors import DataError, UsageError
from box_store.identity import seen_by
from box_store.store.store import BoxStore

MIN_BOXES = 50
_SURE_SCORE = 0.3
# of log temperature
_BOUNDS = (-4.0, 4.0)


def calibrate(
    store: BoxStore,
    teacher: str,
    coco: CocoData,
    *,
    method: Method = "isotonic",
    held_out: float = 0.5,
    seed: int = 0,
    iou: float = 0.5,
    nms_iou: float | None = 0.5,
    max_images: int | None = None,
) -> Calibration:
    """Fit a teacher's score map on part of the images and judge it on the rest.

    held_out: share of the images, 0..1 but not 1, drawn with `seed`, that the fit does not see.
    nms_iou: boxes are suppressed by it first, class by class, as a selection of the same `nms_iou`
    does: repeats of a box that will not teach would make the one that does look unsure.
    Writes nothing: `write_calibration` does. Raises UsageError, and DataError where there are no
    annotated images, other categories, or too few boxes to fit to.
    """
    if not 0 <= held_out < 1:
        raise UsageError(f"held_out is a share of the images from 0 to below 1, got {held_out}")
    store = seen_by(store, coco, [teacher])
    record = store.record(teacher)
    judged = judge(store, teacher, coco, iou=iou, nms_iou=nms_iou, max_images=max_images, seed=seed)
    n_images = len(judged.image_ids)
    is_held = np.zeros(n_images, bool)
    is_held[np.random.default_rng(seed).permutation(n_images)[: int(held_out * n_images)]] = True
    fitted, held = judged.of_images(~is_held), judged.of_images(is_held)
    score_map = fit_map(fitted, method, f"teacher {teacher}")
    return Calibration(
        teacher=teacher,
        fingerprint=record.fingerprint,
        map=score_map,
        annotations=coco.path.name,
        annotations_sha256=coco.sha256,
        iou=iou,
        seed=seed,
        held_out=held_out,
        fitted=_part(fitted, score_map),
        held=_part(held, score_map) if is_held.any() else None,
        nms_iou=nms_iou,
    )


def fit_map(judged: Judged, method: Method, who: str) -> ScoreMap:
    """The map of that method that fits the outcomes best. Raises DataError, naming `who`."""
    n_hits = int(judged.hits.sum())
    if len(judged.scores) < MIN_BOXES or n_hits in (0, len(judged.scores)):
        raise DataError(
            f"{who} cannot be calibrated: {n_hits} of {len(judged.scores)} boxes in "
            f"{len(judged.image_ids)} images are right, and it takes {MIN_BOXES} boxes, some right "
            "and some wrong. Use more annotated images, or hold out fewer"
        )
    # stored scores have few levels: everything below works on counts
    levels, level_of = np.unique(judged.scores.astype(np.float64), return_inverse=True)
    counts = np.bincount(level_of).astype(np.float64)
    hits = np.bincount(level_of[judged.hits], minlength=len(levels)).astype(np.float64)
    return (
        _isotonic(levels, counts, hits)
        if method == "isotonic"
        else _temperature(levels, counts, hits)
    )


def _isotonic(
    levels: NDArray[np.float64], counts: NDArray[np.float64], hits: NDArray[np.float64]
) -> ScoreMap:
    from scipy.optimize import isotonic_regression

    fit = isotonic_regression(hits / counts, weights=counts)
    knots: dict[float, float] = {}
    for first, end in zip(fit.blocks[:-1].tolist(), fit.blocks[1:].tolist(), strict=True):
        value = round(float(np.clip(fit.x[first], 0, 1)), 6)
        knots[float(levels[first])] = knots[float(levels[end - 1])] = value
    return ScoreMap("isotonic", tuple(knots.items()))


def _temperature(
    levels: NDArray[np.float64], counts: NDArray[np.float64], hits: NDArray[np.float64]
) -> ScoreMap:
    from scipy.optimize import minimize_scalar

    raw = logits(levels)

    def loss(log_temperature: float) -> float:
        """Negative log likelihood of the outcomes."""
        scaled = raw / np.exp(log_temperature)
        return float(np.sum(counts * np.logaddexp(0, scaled) - hits * scaled))

    best = minimize_scalar(loss, bounds=_BOUNDS, method="bounded")
    return ScoreMap("temperature", temperature=round(float(np.exp(best.x)), 6))


def _part(judged: Judged, score_map: ScoreMap) -> Part:
    return Part(
        n_images=len(judged.image_ids),
        n_boxes=len(judged.scores),
        n_hits=int(judged.hits.sum()),
        raw=_quality(judged.scores, judged.hits),
        calibrated=_quality(score_map.apply(judged.scores), judged.hits),
    )


def _quality(scores: NDArray[np.float32], hits: NDArray[np.bool_]) -> Quality:
    bands = reliability(scores, hits)
    return Quality(
        calibration_error(bands),
        calibration_error(bands, _SURE_SCORE),
        brier_score(scores, hits),
        bands,
    )
