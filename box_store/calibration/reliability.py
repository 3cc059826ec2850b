"""How far scores can be believed: bands of scores, calibration error, Brier score."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_BANDS = 10

# from_score, boxes, mean_score, precision: a row of the example query `calibration`
Band = dict[str, Any]


def reliability(
    scores: NDArray[np.floating[Any]], hits: NDArray[np.bool_], n_bands: int = N_BANDS
) -> list[Band]:
    """Bands of equal width with boxes in them, lowest first.

    scores [N] in 0..1; hits [N]: which boxes are right. Each band has `from_score` (where it
    begins), `boxes`, `mean_score` and `precision` (the share of them that is right).
    """
    scores = np.asarray(scores, np.float64)
    band = np.minimum((scores * n_bands).astype(np.int64), n_bands - 1)
    counts = np.bincount(band, minlength=n_bands)
    sums = np.bincount(band, scores, n_bands)
    right = np.bincount(band, hits, n_bands)
    return [
        {
            "from_score": round(at / n_bands, 3),
            "boxes": int(counts[at]),
            "mean_score": float(sums[at] / counts[at]),
            "precision": float(right[at] / counts[at]),
        }
        for at in np.flatnonzero(counts).tolist()
    ]


def calibration_error(bands: Iterable[Mapping[str, Any]], from_score: float = 0.0) -> float | None:
    """Expected calibration error, 0..1, of the bands from `from_score` on; None without any.

    The mean of |precision - mean score| weighted by boxes (Naeini et al., AAAI 2015, for detections
    at one IoU).
    """
    chosen = [band for band in bands if band["from_score"] >= from_score - 1e-9]
    n_boxes = sum(band["boxes"] for band in chosen)
    if not n_boxes:
        return None
    gaps = sum(band["boxes"] * abs(band["precision"] - band["mean_score"]) for band in chosen)
    return gaps / n_boxes


def brier_score(scores: NDArray[np.floating[Any]], hits: NDArray[np.bool_]) -> float | None:
    """Mean squared distance of scores from outcomes (Brier 1950); None without boxes."""
    if not len(scores):
        return None
    return float(np.mean((np.asarray(scores, np.float64) - hits) ** 2))
