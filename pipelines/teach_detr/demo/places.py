"""Where the demo keeps what it makes, under which names, and how large it is."""

from dataclasses import dataclass
from pathlib import Path

MMDET, YOLO, START = "rtmdet", "yolo", "start"


BASELINE, TAUGHT = "baseline", "taught"


@dataclass(frozen=True)
class DemoSize:
    """How large everything is; `images` counts files, `steps` are of 16 images each."""

    train_images: int
    val_images: int
    other_images: int
    yolo_seconds: int
    steps: int
    evaluate_every: int
    lr: float = 3e-4
    seed: int = 7
    thin: float = 0.33
    style: str = "day"
    # small detectors are rarely sure: below this, most of their boxes hold nothing
    score_floor: float = 0.45
    top_k: int = 20


FULL = DemoSize(1280, 250, 1600, 110, 240, 80)


FAST = DemoSize(64, 24, 96, 4, 8, 4)


@dataclass(frozen=True)
class Places:
    """Where the demo keeps what it makes."""

    root: Path

    @property
    def scenes(self) -> Path:
        """The data set: COCO's layout."""
        return self.root / "scenes"

    @property
    def other(self) -> Path:
        """Fully labelled scenes that the Ultralytics teacher is trained on: YOLO's layout."""
        return self.root / "other"

    @property
    def teachers(self) -> Path:
        """Weights of the teachers."""
        return self.root / "teachers"

    @property
    def store(self) -> Path:
        """The box store."""
        return self.root / "store"

    def run(self, name: str) -> Path:
        """The run folder of a student."""
        return self.root / "runs" / name

    def results(self, name: str) -> Path:
        """Detections of a student's last evaluation."""
        return self.run(name) / "results" / "val2017.json"

    def annotations(self, split: str) -> Path:
        """COCO annotations of the scenes."""
        return self.scenes / "annotations" / f"instances_{split}.json"
