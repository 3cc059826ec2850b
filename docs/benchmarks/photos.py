"""JPEG photos, CPU milliseconds a photo, in turns: `read_image` with simplejpeg and by Pillow as it
was read before; and photos of 12 megapixels to 256 px, decoded whole and no larger than needed.

python docs/benchmarks/photos.py FOLDER [ROUNDS]
"""

import io
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from student_train.bench.photos import make_dataset
from student_train.config import AugmentConfig, TrainConfig
from student_train.data import EvalTransform, read_image
from student_train.data.transforms import Scene

LARGE = (4000, 3000)


def by_pillow(path: Path) -> torch.Tensor:
    """As where simplejpeg is missing, with the two copies that Pillow's buffer needs."""
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def milliseconds(ways: Sequence[Callable[[], object]], n: int, rounds: int) -> list[float]:
    """The least CPU time of each way over the rounds, for one of its n photos."""
    best = [float("inf")] * len(ways)
    for _ in range(rounds):
        for index, way in enumerate(ways):
            start = time.process_time()
            way()
            best[index] = min(best[index], (time.process_time() - start) / n * 1e3)
    return best


def of_coco(folder: Path, rounds: int) -> None:
    """Print both readers, whether their pixels are equal, and their ratio."""
    photos = sorted(folder.rglob("*.jpg"))
    equal = sum(torch.equal(by_pillow(path), read_image(path)) for path in photos)
    print(f"{equal} of {len(photos)} photos are equal pixel for pixel")
    ways = [lambda read=read: [read(path) for path in photos] for read in (by_pillow, read_image)]
    pillow, ours = milliseconds(ways, len(photos), rounds)
    print(f"Pillow {pillow:.2f} ms, read_image {ours:.2f} ms, {pillow / ours:.2f} times faster")


def large_photos(folder: Path, n: int, grain: float) -> float:
    """Write photos with so much detail of every pixel; megabytes of one."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    for index in range(n):
        coarse = draw.integers(0, 256, (LARGE[1] // 20, LARGE[0] // 20, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(LARGE, Image.Resampling.BICUBIC))
        pixels = (smooth + draw.normal(0, grain, smooth.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.jpg", quality=90)
    return sum(path.stat().st_size for path in folder.iterdir()) / n / 1e6


def of_large_photos(grain: float, rounds: int, n: int = 4) -> None:
    """Print 12 megapixels to 256 px: read whole by Pillow as before, whole, and scaled."""
    transform = EvalTransform(AugmentConfig(eval_short_side=256, eval_long_side=512))
    with tempfile.TemporaryDirectory() as given:
        folder, photos = Path(given), Path(given) / "photos"
        size = large_photos(photos, n, grain)
        dataset = make_dataset(TrainConfig(), photos, folder)
        dataset.transform = transform

        def before() -> None:
            for index in range(n):
                image = by_pillow(photos / dataset.file_name(index))
                transform(Scene.start(image, torch.zeros(0, 4)), torch.Generator())

        def loaded(scaled: bool) -> list[object]:
            dataset.scaled_decode = scaled
            return [dataset[index].sample for index in range(n)]

        ways = [before, lambda: loaded(False), lambda: loaded(True)]
        pillow, whole, scaled = milliseconds(ways, n, rounds)
    print(
        f"{LARGE[0]} x {LARGE[1]} px, {size:.1f} MB, to 256 px: before {pillow:.0f} ms, whole "
        f"{whole:.0f} ms, data.scaled_decode {scaled:.0f} ms: {pillow / scaled:.1f} and "
        f"{whole / scaled:.1f} times faster"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    times = int(sys.argv[2]) if len(sys.argv) > 2 else 4
    of_coco(Path(sys.argv[1]), times)
    for grain in (2, 4, 8):
        of_large_photos(grain, times)
