"""Frames of videos, by OpenCV where it is installed."""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from box_store.errors import DataError, UsageError
from box_store.places.locations import Location

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


def is_video(path: Location) -> bool:
    """Whether a file's name says that it is a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


@dataclass(frozen=True)
class Frame:
    """One picture of a video: its number from 0, and [H, W, 3] uint8 RGB."""

    index: int
    image: np.ndarray


def require_opencv() -> None:
    """Refuse before the work.

    Raises:
        UsageError: OpenCV is not installed; the extra is named.
    """
    if importlib.util.find_spec("cv2") is None:
        raise UsageError(
            "videos need OpenCV, which is not installed: pip install 'teach-detr[video]', "
            "or give single images"
        )


def read_frames(path: Path, every: int = 1) -> Iterator[Frame]:
    """Every `every`-th frame.

    Raises:
        UsageError: OpenCV is not installed.
        DataError: the file cannot be read as a video.
    """
    require_opencv()
    import cv2

    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise DataError(f"{path} cannot be read as a video")
        index = 0
        # grabbing is cheap where decoding is not wanted
        while capture.grab():
            if index % every == 0:
                whole, image = capture.retrieve()
                if whole:
                    yield Frame(index, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            index += 1
        if index == 0:
            raise DataError(f"{path} holds no frame that can be read")
    finally:
        capture.release()


def frames_per_second(path: Path) -> float:
    """As the file says; 25 where it says nothing."""
    import cv2

    capture = cv2.VideoCapture(str(path))
    try:
        return float(capture.get(cv2.CAP_PROP_FPS)) or 25.0
    finally:
        capture.release()
