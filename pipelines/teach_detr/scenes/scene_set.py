"""`teach-detr scenes`: a data set of drawn scenes, and the detectors that teach about them.

The teachers learn on other scenes of the same world and style with every label. Like people's own
detectors they know more than the labels of the data set say, and they are real: they miss things,
mistake look-alikes and trust some clutter.
"""

import json
import os
import shutil
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import torch
from rich.console import Console

from box_store.errors import UsageError
from box_store.places.files import replacing, write_json
from teach_detr.runs.stages import Stages, stoppable
from teach_detr.scenes.drawing import draw_once
from teach_detr.scenes.painting import VAL_FIRST_ID, VAL_SEED, check_names
from teach_detr.scenes.settings import SceneSet, TeacherSize

RTMDET, YOLO = "rtmdet", "yolo"


def make_scene_set(
    out: Path, scenes: SceneSet, teachers: TeacherSize | None, fresh: bool, console: Console
) -> None:
    """Do what is left of the data set in the folder `out`, and of its teachers unless None.

    Raises:
        UsageError: `out` holds something else, an unknown world or style, no teacher's framework.
        StageError: a teacher's training failed.
        StageStopped: Ctrl-C; the same command goes on.
    """
    check_names([scenes.style], scenes.world)
    if teachers is not None and find_spec("mmdet") is None and find_spec("ultralytics") is None:
        raise UsageError(
            "--teachers needs a framework: pip install 'teach-detr[mmdet]' (or ultralytics), or "
            "leave it out and draw scenes only"
        )
    _claim(out, scenes, teachers, fresh)
    with stoppable(f"stopped. Run the same command again to go on; everything is in {out}"):
        maker = _Maker(out, scenes, console)
        maker.draw()
        if teachers is not None:
            maker.teach(teachers)
    console.print(f"\n{out}: {scenes.images} + {scenes.val_images} scenes", highlight=False)
    if teachers is not None:
        maker.show("next      teacher-infer run --data", out, "--split train2017 --split val2017")
        maker.show("            --store", out / "store", "--teachers", out / "teachers.toml")


def _claim(root: Path, scenes: SceneSet, teachers: TeacherSize | None, fresh: bool) -> None:
    """Make the folder, or see that what it holds was asked for in the same words."""
    note = root / "scenes.json"
    if fresh and note.exists():
        shutil.rmtree(root)
    known: dict[str, object] = {}
    if note.exists():
        known = json.loads(note.read_text(encoding="utf-8"))
    elif root.exists() and any(root.iterdir()):
        raise UsageError(f"{root} is not empty and holds no drawn scenes: choose another folder")
    asked = {"scenes": asdict(scenes)}
    if teachers is not None:
        # as JSON gives it back: lists, no tuples
        asked["teachers"] = json.loads(json.dumps(asdict(teachers)))
    for what, settings in asked.items():
        if known.get(what, settings) != settings:
            raise UsageError(
                f"{root} holds other {what}: {known[what]}; asked for {settings}. --fresh begins "
                "anew, or choose another folder"
            )
    root.mkdir(parents=True, exist_ok=True)
    write_json(note, {**known, **asked})


class _Maker(Stages):
    """The parts, each passed over where its result is there."""

    def __init__(self, root: Path, scenes: SceneSet, console: Console) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        super().__init__(root, console, threads=max(1, min(4, cores or 1)))
        self.scenes = scenes
        self.folder = root / "teachers"
        self.device = "cuda" if torch.cuda.is_available() else "cpu"

    def draw(self) -> None:
        """Both splits in COCO's layout."""
        asked = self.scenes
        self._draw(self.root, "train2017", asked.images, asked.seed, thin=asked.thin)
        self._draw(
            self.root, "val2017", asked.val_images, asked.seed + VAL_SEED, first_id=VAL_FIRST_ID
        )

    def teach(self, size: TeacherSize) -> None:
        """Train the teachers and describe them in `teachers.toml`."""
        other = self.folder / "other"
        self._draw(other / "images", "train", size.images, self.scenes.seed + 2 * VAL_SEED)
        tables = []
        if self._has("ultralytics", "(AGPL-3.0)"):
            if not (self.folder / "yolo.pt").exists():
                self._train_yolo(other, size)
            tables.append(
                f'[teachers.{YOLO}]\nadapter = "ultralytics"\nmodel = "teachers/yolo.pt"\n'
                f"image_size = {size.yolo_px}\n"
            )
        if self._has("mmdet"):
            if not (self.folder / "rtmdet.pth").exists():
                self._train_rtmdet(other, size)
            tables.append(
                f'[teachers.{RTMDET}]\nadapter = "mmdet"\nmodel = "teachers/rtmdet.py"\n'
                'weights = "teachers/rtmdet.pth"\nlicence = "MIT"\n'
            )
        with replacing(self.root / "teachers.toml") as file:
            file.write("\n".join(tables).encode())

    def _has(self, extra: str, about: str = "") -> bool:
        found = find_spec(extra) is not None
        if not found:
            self._say(
                f"no {extra} teacher: that extra {about} is not installed; "
                f"pip install 'teach-detr[{extra}]' adds it"
            )
        return found

    def _train_yolo(self, other: Path, size: TeacherSize) -> None:
        self.title(f"training YOLO from nothing for {size.yolo_epochs} epochs on {self.device}")
        self.python(
            "teach_detr.toy_teachers.yolo_training",
            *(other, self.folder / "yolo.pt"),
            *("--epochs", size.yolo_epochs, "--image-size", size.yolo_px),
            *("--threads", self.threads, "--device", "0" if self.device == "cuda" else "cpu"),
        )

    def _train_rtmdet(self, other: Path, size: TeacherSize) -> None:
        self.title(f"fine-tuning RTMDet for {size.steps} steps on {self.device}")
        self.python(
            "teach_detr.toy_teachers.mmdet_training",
            *(other, self.folder / "rtmdet.pth"),
            *("--steps", size.steps, "--lr", size.lr, "--zoom", *size.zoom, "--seed", size.seed),
            *("--image-size", size.rtmdet_px, "--threads", self.threads, "--device", self.device),
        )

    def _draw(
        self,
        out: Path,
        split: str,
        n_images: int,
        seed: int,
        thin: float = 0.0,
        first_id: int = 1,
    ) -> None:
        asked = self.scenes
        draw_once(
            self.console,
            *(out, split, n_images, seed, [asked.style]),
            world=asked.world,
            thin=thin,
            first_id=first_id,
        )

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
