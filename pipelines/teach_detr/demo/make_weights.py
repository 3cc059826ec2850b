"""The recipe behind the weights in `weights/`: what the demo starts from.

    scenes    `mixed`: three styles, for the teacher; `day`: daylight only, for the student;
              all labels, and seeds that the demo does not use
    teacher   a narrow RTMDet (mmdet) on `mixed`
    backbone  the student's backbone on `day`, with a dense head that is thrown away
    student   the preset dino-demo on `day`, from that backbone, through the trainer
    report    AP of both on new scenes of each style

Every part is resumed where it stopped. Weights are stored in half precision.
"""

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import save_file

from box_store import Boxes, load_coco
from student_train.config import resolve
from student_train.data import read_image
from student_train.evaluation.coco_arrays import DetectionArrays
from student_train.evaluation.evaluate import coco_metrics
from student_train.evaluation.tables import percent
from student_train.predictor import load_predictor
from student_train.presets import load_preset
from student_train.runs.checkpoint import load_weights, save_weights
from student_train.settings.origin import Kind, Origin
from student_train.settings.overrides import Layer
from student_train.training.launch import train
from teach_detr.scenes.painting import STYLES, VAL_FIRST_ID, make_split
from teach_detr.toy_teachers.backbone_training import BackboneRecipe, train_backbone
from teach_detr.toy_teachers.mmdet_training import CONFIG, MMDetRecipe, train_mmdet
from teach_detr.toy_teachers.shipped import (
    MMDET_TEACHER,
    START_STUDENT,
    half,
    mmdet_checkpoint,
    weights_folder,
)

_MIXED_STYLES = ("day", "dusk", "reef")
_MIXED_SEED, _DAY_SEED, _DAY_VAL_SEED, _REPORT_SEED = 20, 30, 31, 40
_REPORT_IMAGES = 300


@dataclass(frozen=True)
class Recipe:
    """Sizes of everything; the defaults made the shipped weights."""

    mixed_images: int = 8000
    day_images: int = 12000
    val_images: int = 300
    teacher_steps: int = 2200
    backbone_steps: int = 1500
    student_steps: int = 2400
    student_batch: int = 8
    student_lr: float = 7e-4
    student_ema: float = 0.998


def make_weights(
    work: Path,
    out: Path | None,
    part: str,
    log: Path | None,
    console: Console,
    recipe: Recipe | None = None,
) -> dict[str, Any]:
    """Make one part (`teacher`, `backbone`, `student`, `report`) or `all`, in the folder `work`.

    Weights go to `out` (by default into the package), the report to `log` as Markdown. Returns for
    JSON the folder of the weights and, where a report was made, their metrics (0..1) by style.

    Raises:
        TeachDetrError: mmdet is not installed, or a file cannot be written.
    """
    maker = _Maker(work, out or weights_folder(), recipe or Recipe(), console)
    if part in ("all", "teacher"):
        maker.teacher()
    if part in ("all", "backbone"):
        maker.backbone()
    if part in ("all", "student"):
        maker.student()
    rows = maker.report(log) if part in ("all", "report") else []
    report = [{"weights": name, "scenes": style, **values} for name, style, values in rows]
    return {"out": str(maker.out), "part": part, "report": report}


class _Maker:
    def __init__(self, work: Path, out: Path, recipe: Recipe, console: Console) -> None:
        self.work = work
        self.out = out
        self.recipe = recipe
        self.console = console
        self._times = work / "times.json"

    def teacher(self) -> None:
        """mmdet's RTMDet on scenes of all styles."""
        scenes = self._scenes("mixed", _MIXED_STYLES, self.recipe.mixed_images, _MIXED_SEED)
        with self._timed("teacher"):
            tensors = train_mmdet(
                scenes / "train2017",
                scenes / "annotations" / "instances_train2017.json",
                self.work / "teacher.pt",
                MMDetRecipe(steps=self.recipe.teacher_steps),
                self._say,
            )
        names = load_coco(scenes / "annotations" / "instances_train2017.json").categories.names
        self.out.mkdir(parents=True, exist_ok=True)
        metadata = {"config": CONFIG.name, "classes": ",".join(names), "licence": "MIT"}
        save_file(half(tensors), self.out / MMDET_TEACHER, metadata=metadata)

    def backbone(self) -> None:
        """The student's backbone on scenes by daylight."""
        scenes = self._day()
        with self._timed("backbone"):
            tensors = train_backbone(
                scenes / "train2017",
                scenes / "annotations" / "instances_train2017.json",
                self.work / "backbone.pt",
                BackboneRecipe(
                    load_preset("dino-demo").model.backbone, steps=self.recipe.backbone_steps
                ),
                self._say,
            )
        save_file(tensors, self.work / "backbone.safetensors")

    def student(self) -> None:
        """The small DINO on scenes by daylight, from that backbone."""
        scenes = self._day()
        run = self.work / "student"
        steps_per_epoch = max(1, self.recipe.day_images // self.recipe.student_batch)
        settings: dict[str, Any] = {
            "data.root": scenes,
            "data.val_limit": 150,
            "teachers.names": "none",
            "model.backbone_weights": str(self.work / "backbone.safetensors"),
            "epochs": -(-self.recipe.student_steps // steps_per_epoch),
            "steps": self.recipe.student_steps,
            "batch_size": self.recipe.student_batch,
            "optim.lr": self.recipe.student_lr,
            "optim.backbone_lr": self.recipe.student_lr,
            "optim.ema": self.recipe.student_ema,
            "eval_every": min(1.0, 600 / steps_per_epoch),
            "save_every": 100,
            "threads": torch.get_num_threads(),
        }
        layer = Layer(Origin(Kind.OTHER, "recipe"), settings)
        with self._timed("student"):
            train(
                resolve(load_preset("dino-demo"), arguments=[layer]),
                run,
                self.console,
                resume=True,
                command=["teach-detr", "demo-weights"],
            )
        export_student(run, self.out / START_STUDENT)

    def report(self, log: Path | None) -> list[tuple[str, str, dict[str, float | None]]]:
        """AP of the teacher and the start student on new scenes of every style."""
        rows = []
        for style in STYLES:
            scenes = self.work / f"report_{style}"
            path = scenes / "annotations" / "instances_val2017.json"
            if not path.exists():
                make_split(
                    scenes,
                    "val2017",
                    _REPORT_IMAGES,
                    _REPORT_SEED,
                    [style],
                    first_id=VAL_FIRST_ID,
                )
            for title, predict in (
                (MMDET_TEACHER, self._teacher_predictor),
                (START_STUDENT, self._student_predictor),
            ):
                rows.append((title, style, _score(predict(), scenes / "val2017", path)))
        text = self._markdown(rows)
        self.console.print(text, markup=False, highlight=False)
        if log is not None:
            log.write_text(text, encoding="utf-8")
        return rows

    def _teacher_predictor(self) -> Callable[[list[Any]], list[Boxes]]:
        from teacher_infer.adapters.protocol import AdapterSpec
        from teacher_infer.teachers.loaded import load_teacher

        weights = self.work / "teacher.pth"
        weights.unlink(missing_ok=True)
        mmdet_checkpoint(weights, self.out / MMDET_TEACHER)
        options = {"weights": str(weights)}
        spec = AdapterSpec("mmdet", str(CONFIG), score_floor=0.01, options=options)
        return load_teacher(spec).predict

    def _student_predictor(self) -> Callable[[list[Any]], list[Boxes]]:
        return load_predictor(self.out / START_STUDENT, "cpu").predict

    def _markdown(self, rows: list[tuple[str, str, dict[str, float | None]]]) -> str:
        times = json.loads(self._times.read_text()) if self._times.exists() else {}
        recipe = self.recipe
        seen = {
            "teacher": recipe.teacher_steps * MMDetRecipe().batch_size,
            "backbone": recipe.backbone_steps * BackboneRecipe("").batch_size,
            "student": recipe.student_steps * recipe.student_batch,
        }
        lines = [
            "# How the demo's weights were made",
            "",
            "`teach-detr demo-weights --work FOLDER` makes the files in "
            "`pipelines/teach_detr/weights`: drawn scenes only, every label, none of the demo's "
            "seeds. The report below is what it printed for the shipped files.",
            "",
            f"Machine: {_processor()}, {torch.get_num_threads()} thread(s), torch "
            f"{torch.__version__}, no GPU.",
            "",
            "| part | images seen | minutes |",
            "| --- | ---: | ---: |",
            *(
                f"| {name} | {seen[name]} | {seconds / 60:.0f} |"
                for name, seconds in times.items()
                if name in seen
            ),
            "",
            f"AP in percent on {_REPORT_IMAGES} new scenes of each style, all labels:",
            "",
            "| weights | KiB | scenes | AP | AP50 | AP75 | APs | APm | APl |",
            "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for title, style, values in rows:
            size = (self.out / title).stat().st_size / 2**10
            shown = " | ".join(
                percent(values[name]) for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")
            )
            lines.append(f"| {title} | {size:.0f} | {style} | {shown} |")
        lines += [
            "",
            f"The teacher was trained on {', '.join(_MIXED_STYLES)}, the student on day alone.",
            "",
        ]
        return "\n".join(lines)

    def _day(self) -> Path:
        scenes = self._scenes("day", ("day",), self.recipe.day_images, _DAY_SEED)
        if not (scenes / "annotations" / "instances_val2017.json").exists():
            make_split(
                scenes,
                "val2017",
                self.recipe.val_images,
                _DAY_VAL_SEED,
                ["day"],
                first_id=VAL_FIRST_ID,
            )
        return scenes

    def _scenes(self, name: str, styles: tuple[str, ...], n_images: int, seed: int) -> Path:
        folder = self.work / name
        if not (folder / "annotations" / "instances_train2017.json").exists():
            self._say(f"drawing {n_images} scenes into {folder}")
            make_split(folder, "train2017", n_images, seed, styles)
        return folder

    def _timed(self, name: str) -> "_Timed":
        return _Timed(self._times, name)

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def export_student(run: Path, out: Path) -> None:
    """Write the best weights of a run in half precision, without the paths of the machine."""
    tensors, about = load_weights(run / "checkpoints" / "best.safetensors")
    about["config"]["data"]["root"] = None
    about["config"]["model"]["backbone_weights"] = None
    save_weights(out, half(tensors), about)


class _Timed:
    """Adds the seconds that a part took to those of earlier calls."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self._started = 0.0

    def __enter__(self) -> None:
        self._started = time.monotonic()

    def __exit__(self, *exception: object) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        times = json.loads(self._path.read_text()) if self._path.exists() else {}
        times[self._name] = times.get(self._name, 0.0) + time.monotonic() - self._started
        self._path.write_text(json.dumps(times))


def _score(
    predict: Callable[[list[Any]], list[Boxes]], folder: Path, annotations: Path
) -> dict[str, float | None]:
    """COCO metrics of a predictor whose class ids are positions in the data set's table."""
    coco = load_coco(annotations)
    ids = coco.categories.ids
    results: list[tuple[int, Boxes]] = []
    for image in coco.images:
        pixels = read_image(folder / image.file_name).permute(1, 2, 0).numpy()
        found = predict([pixels])[0]
        named = Boxes(
            found.boxes_xyxy,
            found.scores,
            [ids[i] for i in found.class_ids.tolist()],  # type: ignore[arg-type]
            found.width,
            found.height,
        )
        results.append((image.id, named))
    return coco_metrics(coco, DetectionArrays.of_images(results)).values


def _processor() -> str:
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
