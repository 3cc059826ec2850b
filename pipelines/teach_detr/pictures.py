"""Pictures of a comparison: a grid of images with several sets of boxes, and training curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2.functional import resize
from torchvision.utils import draw_bounding_boxes, make_grid

from box_store.boxes import Boxes, to_xyxy
from box_store.coco.annotations import CocoData
from box_store.results.exporting import iter_results
from student_train.data import read_image

# distinct on light and dark grounds; a class keeps its colour in every picture
_COLOURS = (
    "#ff4d4d",
    "#33c1ff",
    "#ffd23f",
    "#4de06a",
    "#ff8f2e",
    "#c77dff",
    "#2ee6c5",
    "#ff7ab8",
)
_CELL_PX = 256
_HEADER_PX = 30
_GAP_PX = 6
_PAPER = 250


@dataclass(frozen=True)
class Column:
    """One column of the grid: its title, and the boxes to draw, by image id.

    `class_ids` are category ids. Boxes below `min_score` are left out.
    """

    title: str
    boxes: Mapping[int, Boxes]
    min_score: float = 0.0


def truth_boxes(coco: CocoData, image_id: int) -> Boxes:
    """The annotated boxes of an image, with scores of 1."""
    truth, image = coco.annotations_of(image_id), coco.by_id[image_id]
    ones = np.ones(len(truth), np.float32)
    return Boxes(truth.boxes_xyxy, ones, truth.category_ids, image.width, image.height)


def result_boxes(path: Path, coco: CocoData, ids: Sequence[int]) -> dict[int, Boxes]:
    """The detections of these images in a COCO results file."""
    rows: dict[int, list[Mapping[str, Any]]] = {i: [] for i in ids}
    for row in iter_results(path):
        if row["image_id"] in rows:
            rows[row["image_id"]].append(row)
    found: dict[int, Boxes] = {}
    for image_id, detections in rows.items():
        image = coco.by_id[image_id]
        found[image_id] = Boxes(
            to_xyxy([row["bbox"] for row in detections]),
            [row["score"] for row in detections],  # type: ignore[arg-type]
            [row["category_id"] for row in detections],  # type: ignore[arg-type]
            image.width,
            image.height,
        ).clipped()
    return found


def picture_grid(
    out: Path,
    images: Sequence[tuple[int, Path]],
    columns: Sequence[Column],
    names: Mapping[int, str],
) -> Path:
    """Write a PNG, a row for each image (id, file), a column for each set of boxes."""
    rows: list[Tensor] = []
    for image_id, file in images:
        pixels = read_image(file)
        cells = [
            _cell(pixels, column.boxes.get(image_id), column.min_score, names) for column in columns
        ]
        rows.append(make_grid(cells, nrow=len(columns), padding=_GAP_PX, pad_value=_PAPER))
    header = _header([column.title for column in columns], rows[0].shape[2])
    out.parent.mkdir(parents=True, exist_ok=True)
    picture = torch.cat([header, *rows], 1).permute(1, 2, 0)
    Image.fromarray(picture.numpy()).save(out)
    return out


def _cell(pixels: Tensor, boxes: Boxes | None, floor: float, names: Mapping[int, str]) -> Tensor:
    """uint8 [3, H, W] to [3, h, `_CELL_PX`] with h at most as much: the image and its boxes."""
    height, width = pixels.shape[1:]
    scale = _CELL_PX / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    pixels = resize(pixels, list(size), antialias=True)
    if boxes is not None and len(boxes):
        shown = boxes.above(floor)
        if len(shown):
            # coarse to fine, so that a small box lies on top of a large one
            shown = shown.take(np.argsort(-shown.areas))
            scaled = torch.from_numpy(shown.boxes_xyxy * np.float32(scale))
            limit = torch.tensor([size[1] - 1, size[0] - 1] * 2)
            ids = shown.class_ids.tolist()
            pixels = draw_bounding_boxes(
                pixels,
                scaled.clamp(min=torch.zeros(4), max=limit),
                colors=[_COLOURS[i % len(_COLOURS)] for i in ids],
                width=2,
            )
            pixels = _tags(pixels, scaled, ids, shown.scores.tolist(), names)
    cell = torch.full((3, size[0], _CELL_PX), _PAPER, dtype=torch.uint8)
    left = (_CELL_PX - size[1]) // 2
    cell[:, :, left : left + size[1]] = pixels
    return cell


def _tags(
    pixels: Tensor,
    boxes_px: Tensor,
    ids: Sequence[int],
    scores: Sequence[float],
    names: Mapping[int, str],
) -> Tensor:
    """Class names (and scores other than 1) on plates of the class's colour."""
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(11)
    for box, category, score in zip(boxes_px.tolist(), ids, scores, strict=True):
        text = names.get(category, str(category)) + ("" if score >= 1 else f" {score:.2f}"[:-1])
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        wide, high = right - left + 4, bottom - top + 4
        x = min(max(0, box[0]), image.width - wide)
        y = box[1] - high if box[1] >= high else box[1]
        draw.rectangle([x, y, x + wide, y + high], fill=_COLOURS[category % len(_COLOURS)])
        draw.text((x + 2 - left, y + 2 - top), text, fill="black", font=font)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def _header(titles: Sequence[str], width: int) -> Tensor:
    image = Image.new("RGB", (width, _HEADER_PX), (_PAPER,) * 3)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(16)
    for i, title in enumerate(titles):
        centre = _GAP_PX + i * (_CELL_PX + _GAP_PX) + _CELL_PX / 2
        draw.text((centre, _HEADER_PX / 2 + 2), title, fill=(40, 40, 48), font=font, anchor="mm")
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def training_curves(out: Path, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path | None:
    """Write a PNG of AP and of the losses over the steps of each run.

    `runs` holds the records of each run's `metrics.jsonl`. Returns None where matplotlib is not
    installed.
    """
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    palette = ("#8a8f98", "#e4572e", "#2e86ab", "#7cb518")
    for colour, (title, records) in zip(palette * len(runs), runs.items(), strict=False):
        points = [(r["step"], 100 * r["AP"]) for r in records if _is_eval(r)]
        if points:
            steps, values = zip(*points, strict=True)
            left.plot(steps, values, "o-", color=colour, label=title, linewidth=2)
        points = [(r["step"], _truth_loss(r)) for r in records if r.get("kind") == "train"]
        points = [(step, value) for step, value in points if value is not None]
        if points:
            steps, values = zip(*points, strict=True)
            right.plot(steps, values, color=colour, label=title, linewidth=1.5)
    left.set(title="AP on the validation scenes", xlabel="step", ylabel="AP (%)")
    right.set(title="loss on the annotated boxes", xlabel="step")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.has_data():
            axes.legend(frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    return out


def _is_eval(record: Mapping[str, Any]) -> bool:
    return record.get("kind") == "eval" and record.get("AP") is not None


def _truth_loss(record: Mapping[str, Any]) -> float | None:
    """Losses on annotated boxes: class, box and giou, which both runs have."""
    losses = record.get("loss", {})
    terms = [losses.get(name) for name in ("class", "box", "giou")]
    return None if any(term is None for term in terms) else sum(terms)  # type: ignore[arg-type]
