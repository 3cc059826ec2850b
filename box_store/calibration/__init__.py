"""Scores made honest: matching, fitting, the map."""

from box_store.calibration.score_map import (
    Calibration,
    ScoreMap,
    need_calibration,
    read_calibration,
    write_calibration,
)

__all__ = ["Calibration", "ScoreMap", "need_calibration", "read_calibration", "write_calibration"]
