"""JPEG photos by simplejpeg and by Pillow: equal pixels, CPU milliseconds a photo, in turns.

python docs/benchmarks/photos.py FOLDER [ROUNDS]
"""

import io
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from box_store.jpeg import decode_photo


def by_pillow(data: bytes) -> np.ndarray:
    """As where simplejpeg is missing."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def by_simplejpeg(data: bytes) -> np.ndarray | None:
    """As `read_image` asks for it: the header is Pillow's in any case."""
    with Image.open(io.BytesIO(data)) as image:
        return decode_photo(data, image)


def main(folder: Path, rounds: int) -> None:
    """Print both and their ratio."""
    photos = [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))]
    equal = sum(np.array_equal(by_pillow(data), by_simplejpeg(data)) for data in photos)
    print(f"{equal} of {len(photos)} photos are equal pixel for pixel")
    best: dict[str, float] = {}
    for _ in range(rounds):
        for decode in (by_pillow, by_simplejpeg):
            start = time.process_time()
            for data in photos:
                decode(data)
            spent = (time.process_time() - start) / len(photos) * 1e3
            best[decode.__name__] = min(spent, best.get(decode.__name__, spent))
    pillow, simple = best["by_pillow"], best["by_simplejpeg"]
    print(f"Pillow {pillow:.2f} ms, simplejpeg {simple:.2f} ms, {pillow / simple:.2f} times faster")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 4)
