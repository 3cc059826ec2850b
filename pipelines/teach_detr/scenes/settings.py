"""What `teach-detr scenes` is asked for: plain data, so that the command line starts without
what draws and trains."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SceneSet:
    """What is drawn: `images` count files; `thin` is the share of training objects unlabelled."""

    world: str = "crowd"
    style: str = "day"
    images: int = 960
    val_images: int = 250
    seed: int = 11
    thin: float = 0.0


@dataclass(frozen=True)
class TeacherSize:
    """How long teachers learn: `images` other scenes, `steps` of 16 crops, `yolo_epochs`."""

    images: int
    steps: int
    yolo_epochs: int
    # small toys are easier to find enlarged; scenes of the crowd have sides of up to 176 px
    rtmdet_px: int = 224
    yolo_px: int = 192
    zoom: tuple[float, float] = (1.0, 1.7)
    lr: float = 1.5e-3
    seed: int = 0


TEACHER_SIZES = {
    "tiny": TeacherSize(images=32, steps=2, yolo_epochs=1),
    "cpu": TeacherSize(images=3200, steps=600, yolo_epochs=6),
    "gpu": TeacherSize(images=12000, steps=4000, yolo_epochs=20),
}
