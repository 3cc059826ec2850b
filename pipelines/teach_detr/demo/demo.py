"""`teach-detr demo`: the whole line, end to end, on scenes that it draws.

Every stage is a public command run as a user would run it, in its own process: teachers and the
trainer never compete for the cores, what one leaves behind is gone before the next begins, and
the commands on the screen are the ones to try next. A stage whose result is there is passed over,
so a stopped demo goes on.
"""

import json
import os
import shutil
import time
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from box_store.errors import UsageError
from box_store.places.files import write_json
from box_store.wording import counted
from teach_detr.demo.places import (
    BASELINE,
    FAST,
    FULL,
    MMDET,
    START,
    TAUGHT,
    YOLO,
    DemoSize,
    Places,
)
from teach_detr.runs.stages import Stages, stoppable
from teach_detr.scenes.drawing import draw_once
from teach_detr.scenes.painting import VAL_FIRST_ID, VAL_SEED
from teach_detr.toy_teachers.shipped import (
    START_STUDENT,
    config_file,
    mmdet_checkpoint,
    weights_folder,
)
from teach_detr.toy_teachers.yolo_training import IMAGE_SIZE


def run_demo(out: Path, *, fast: bool, fresh: bool, console: Console) -> dict[str, Any]:
    """Do what is left of the demo in the folder `out`, then show the comparison; it as JSON.

    Raises:
        UsageError: `out` holds a demo of the other size, or something else.
        StageError: a stage failed.
        StageStopped: Ctrl-C; the same command goes on.
    """
    from teach_detr.demo.screen import closing_screen

    _check_extras()
    size = FAST if fast else FULL
    places = Places(out)
    _claim(places.root, size, fresh)
    started = time.monotonic()
    sentence = f"stopped. Run the same command again to go on; everything is in {out}"
    with stoppable(sentence):
        demo = _Demo(places, size, console)
        demo.draw_scenes()
        demo.prepare_teachers()
        demo.fill_store()
        demo.train_students()
        demo.mark_time(time.monotonic() - started)
    return closing_screen(places, size, demo.skipped, demo.seconds, console).to_json()


def _check_extras() -> None:
    """What the demo cannot do without should be missed now, not after ten minutes."""
    if find_spec("duckdb") is None:
        raise UsageError(
            "the demo ends with SQL, which needs DuckDB: pip install 'teach-detr[sql]'"
        )
    if find_spec("mmdet") is None and find_spec("ultralytics") is None:
        raise UsageError(
            "the demo needs a teacher's framework: pip install 'teach-detr[mmdet]' (or ultralytics)"
        )


def _claim(root: Path, size: DemoSize, fresh: bool) -> None:
    """Make the folder, or see that it belongs to a demo of this size."""
    note = root / "demo.json"
    if fresh and note.exists():
        shutil.rmtree(root)
    if note.exists():
        try:
            known = json.loads(note.read_text(encoding="utf-8"))["size"]
        except (OSError, ValueError, KeyError, TypeError):
            known = None
        if known != asdict(size):
            raise UsageError(
                f"{root} holds a demo of another size or version: --fresh begins anew, "
                "--out chooses another folder"
            )
    elif root.exists() and any(root.iterdir()):
        raise UsageError(f"{root} is not empty and holds no demo: choose another folder with --out")
    root.mkdir(parents=True, exist_ok=True)
    if not note.exists():
        write_json(note, {"size": asdict(size), "seconds": 0.0})


class _Demo(Stages):
    """The stages, in order. Each is safe to run again."""

    def __init__(self, places: Places, size: DemoSize, console: Console) -> None:
        # more threads than cores slow everything down; more than four do not help nets this small
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        super().__init__(places.root, console, threads=max(1, min(4, cores or 1)))
        self.places = places
        self.size = size
        self.skipped: list[str] = []
        self.seconds = 0.0

    # --- scenes ---------------------------------------------------------------------------------

    def draw_scenes(self) -> None:
        """The data set: labels of the training split thinned, those of validation complete."""
        size, places = self.size, self.places
        self.title(f"drawing scenes, with {size.thin:.0%} of the training labels left out")
        draw_once(
            self.console,
            *(places.scenes, "train2017", size.train_images, size.seed, [size.style]),
            thin=size.thin,
        )
        draw_once(
            self.console,
            *(places.scenes, "val2017", size.val_images, size.seed + VAL_SEED, [size.style]),
            first_id=VAL_FIRST_ID,
        )

    # --- teachers -------------------------------------------------------------------------------

    def prepare_teachers(self) -> None:
        """mmdet's weights come with the package; YOLO learns now; the start student predicts."""
        places = self.places
        if find_spec("mmdet") is None:
            self.skipped.append(
                "no mmdet teacher: that extra is not installed; "
                "pip install 'teach-detr[mmdet]' adds it"
            )
        else:
            mmdet_checkpoint(places.teachers / "rtmdet_toys.pth")
        if find_spec("ultralytics") is None:
            self.skipped.append(
                "no Ultralytics teacher: that extra (AGPL-3.0) is not installed; "
                "pip install 'teach-detr[ultralytics]' adds it"
            )
        elif not (places.teachers / "yolo.pt").exists():
            self.title(
                "training a YOLO teacher on other, fully labelled scenes (AGPL-3.0, so none ships)"
            )
            size = self.size
            draw_once(
                self.console,
                *(places.other / "images", "train", size.other_images),
                *(size.seed + 2 * VAL_SEED, [size.style]),
            )
            self.python(
                "teach_detr.toy_teachers.yolo_training",
                places.other,
                places.teachers / "yolo.pt",
                "--seconds",
                self.size.yolo_seconds,
                "--threads",
                self.threads,
            )
        for split in ("train2017", "val2017"):
            if (places.teachers / "start" / f"{split}.json").exists():
                continue
            self.title(f"the start student's own detections on {split}, as COCO results JSON")
            self.command(
                "student-train",
                "eval",
                weights_folder() / START_STUDENT,
                *("--data", places.scenes, "--split", split, "--out", places.teachers / "start"),
                "--json",
                quiet=True,
            )

    # --- store ----------------------------------------------------------------------------------

    def fill_store(self) -> None:
        """Live teachers by Ray, the JSON by import: the same commands as for COCO."""
        places = self.places
        if self.is_done("store"):
            return
        config = config_file("rtmdet_toys.py")
        checkpoint = places.teachers / "rtmdet_toys.pth"
        teachers: list[str] = []
        if checkpoint.exists():
            teachers.append(f"{MMDET}=mmdet:{config},weights={checkpoint}")
        yolo = places.teachers / "yolo.pt"
        if yolo.exists():
            teachers.append(f"{YOLO}=ultralytics:{yolo},image_size={IMAGE_SIZE}")
        self.title(
            f"running {counted(len(teachers), 'teacher')} over both splits into the box store"
        )
        self.command(
            "teacher-infer",
            "run",
            *("--data", places.scenes, "--split", "train2017", "--split", "val2017"),
            *("--store", places.store),
            *(part for text in teachers for part in ("--teacher", text)),
        )
        self.command(
            "teacher-infer",
            "import",
            *("--store", places.store, "--name", START, "--licence", "MIT"),
            *("--score-floor", "0.01"),
            *("--results", places.teachers / "start" / "train2017.json"),
            *("--results", places.teachers / "start" / "val2017.json"),
        )
        self.mark("store")

    # --- students -------------------------------------------------------------------------------

    def train_students(self) -> None:
        """The same student twice, same weights, steps, order and seed: without and with boxes."""
        self._train(BASELINE, "none")
        self._train(TAUGHT, "all")

    def _train(self, name: str, teachers: str) -> None:
        if self.is_done(name):
            return
        places, size = self.places, self.size
        self.title(f"fine-tuning the small DINO, teachers: {teachers}")
        steps_per_epoch = size.train_images // 16
        self.command(
            "student-train",
            "train",
            *("--preset", "dino-demo", "--init", weights_folder() / START_STUDENT),
            *("--data", places.scenes, "--store", places.store, "--teachers", teachers),
            *("--out", places.run(name), "--resume"),
            f"epochs={-(-size.steps // steps_per_epoch)}",
            f"steps={size.steps}",
            f"teachers.score_floor={size.score_floor}",
            f"teachers.top_k={size.top_k}",
            f"optim.lr={size.lr}",
            f"optim.backbone_lr={size.lr}",
            "optim.warmup_steps=20",
            f"eval_every={size.evaluate_every / steps_per_epoch}",
            "save_every=40",
            f"seed={size.seed}",
            f"threads={self.threads}",
        )
        self.mark(name)

    # --- small things ---------------------------------------------------------------------------

    def mark_time(self, seconds: float) -> None:
        """Add the seconds of this call to those of the calls that it went on from."""
        note = self.places.root / "demo.json"
        known = json.loads(note.read_text(encoding="utf-8"))
        self.seconds = float(known["seconds"]) + seconds
        write_json(note, {**known, "seconds": self.seconds})
