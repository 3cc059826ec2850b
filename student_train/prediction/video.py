"""Videos written, by OpenCV."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from box_store.errors import DataError


class VideoWriter:
    """An MP4 of RGB frames of one size."""

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        self._fps = fps
        self._writer: Any = None

    def add(self, image: np.ndarray) -> None:
        """Append a frame [H, W, 3], uint8.

        Raises:
            DataError: the file cannot be written.
        """
        import cv2

        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            size = (image.shape[1], image.shape[0])
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self.path), code, self._fps, size)
            if not self._writer.isOpened():
                raise DataError(f"cannot write a video to {self.path}")
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()


@contextmanager
def writing(path: Path, fps: float) -> Iterator[VideoWriter]:
    """A writer that is closed at the end."""
    writer = VideoWriter(path, fps)
    try:
        yield writer
    finally:
        writer.close()
