"""Train the demo's Ultralytics teacher, in a process of its own.

Ultralytics is AGPL-3.0 and an optional extra: nothing else of this package imports it, its
weights are not shipped, and what leaves this process is a file of weights that the user made.

    python -m teach_detr.toy_teachers.yolo_training FOLDER OUT.pt --seconds 110 --threads 2
    python -m teach_detr.toy_teachers.yolo_training FOLDER OUT.pt --epochs 6

FOLDER holds `images/train/*.jpg` and `images/annotations/instances_train.json`.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from box_store.coco.annotations import load_coco
from teach_detr.toy_teachers.shipped import config_file

MODEL = config_file("yolo_toys.yaml")
IMAGE_SIZE = 160


def write_labels(folder: Path) -> Path:
    """Write YOLO's label files and `data.yaml` for the COCO annotations in `folder`.

    A line is `class cx cy w h`, the class counted from 0 in the order of ids, lengths relative to
    the image.
    """
    coco = load_coco(folder / "images" / "annotations" / "instances_train.json")
    index = {category.id: i for i, category in enumerate(coco.categories.items)}
    labels = folder / "labels" / "train"
    labels.mkdir(parents=True, exist_ok=True)
    for image in coco.images:
        truth = coco.annotations_of(image.id)
        lines = []
        for (x, y, w, h), category in zip(
            truth.boxes_xywh.tolist(), truth.category_ids.tolist(), strict=True
        ):
            values = (
                (x + w / 2) / image.width,
                (y + h / 2) / image.height,
                w / image.width,
                h / image.height,
            )
            lines.append(f"{index[category]} " + " ".join(f"{value:.6f}" for value in values))
        (labels / image.file_name).with_suffix(".txt").write_text("\n".join(lines))
    # Ultralytics evaluates at the end whatever it is told: one image keeps that short
    (folder / "one.txt").write_text(f"./images/train/{coco.images[0].file_name}\n")
    path = folder / "data.yaml"
    names = json.dumps(list(coco.categories.names))
    root = json.dumps(str(folder.resolve()))
    path.write_text(f"path: {root}\ntrain: images/train\nval: one.txt\nnames: {names}\n")
    return path


def train(
    folder: Path,
    out: Path,
    length: dict[str, float],
    threads: int,
    image_size: int = IMAGE_SIZE,
    device: str = "cpu",
) -> None:
    """Train a small YOLO from nothing, for as long as `length` says in Ultralytics' own settings.

    `{"epochs": 6}` gives the same weights on every run of a machine; `{"time": 0.03}`, in hours
    from the first batch on, gives what the machine gets done in them.
    """
    data = write_labels(folder)
    with tempfile.TemporaryDirectory(prefix="teach-detr-yolo-") as work:
        os.environ["YOLO_OFFLINE"] = "True"
        os.environ["YOLO_CONFIG_DIR"] = work
        os.environ["YOLO_AUTOINSTALL"] = "False"
        os.environ["YOLO_VERBOSE"] = "False"
        import torch
        from ultralytics import YOLO, settings

        settings.update({"sync": False})
        torch.set_num_threads(threads)
        model = YOLO(MODEL, verbose=False)
        model.add_callback("on_train_epoch_end", _report)
        # its bars and screens go nowhere; a failure still ends in its traceback
        with (
            Path(os.devnull).open("w") as nowhere,
            redirect_stdout(nowhere),
            redirect_stderr(nowhere),
        ):
            model.train(
                data=str(data),
                **length,
                imgsz=image_size,
                batch=16,
                device=device,
                workers=0,
                optimizer="AdamW",
                lr0=5e-3,
                lrf=0.05,
                warmup_epochs=0.3,
                mosaic=0.0,
                scale=0.3,
                degrees=0.0,
                amp=False,
                val=False,
                plots=False,
                seed=0,
                verbose=False,
                project=work,
                name="run",
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_suffix(".part")
        shutil.copyfile(Path(work) / "run" / "weights" / "last.pt", part)
        part.replace(out)


def _report(trainer: Any) -> None:
    """A line an epoch in place of the library's own screens."""
    epoch, seconds = trainer.epoch + 1, time.time() - trainer.train_time_start
    if trainer.args.time:
        line = f"epoch {epoch}, {seconds:.0f} of {trainer.args.time * 3600:.0f} s"
    else:
        left = seconds / epoch * (trainer.epochs - epoch)
        line = f"epoch {epoch} of {trainer.epochs}, {seconds:.0f} s, {left:.0f} s left"
    print(f"yolo: {line}", file=sys.__stdout__, flush=True)


def main() -> None:
    """Read the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--seconds", type=float)
    length.add_argument("--epochs", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--image-size", type=int, default=IMAGE_SIZE)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    wanted = {"epochs": given.epochs} if given.epochs else {"time": given.seconds / 3600}
    train(given.folder, given.out, wanted, given.threads, given.image_size, given.device)


if __name__ == "__main__":
    main()
