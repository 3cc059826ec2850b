"""Ground truth and detections in flat arrays: what COCO metrics are computed from.

A million boxes are a few arrays here, and a gigabyte as rows of dictionaries.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from box_store.boxes import Boxes, to_xywh
from box_store.coco.annotations import CocoData


@dataclass(frozen=True, eq=False)
class DetectionArrays:
    """N detections, in the order in which equal scores rank.

    image_ids, category_ids: int64 [N]. boxes_xywh: float64 [N, 4], pixels. scores: float64 [N].
    """

    image_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    boxes_xywh: NDArray[np.float64]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.image_ids)

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, Any]]) -> "DetectionArrays":
        """Of COCO results."""
        n = len(rows)
        return cls(
            np.fromiter((int(row["image_id"]) for row in rows), np.int64, n),
            np.fromiter((int(row["category_id"]) for row in rows), np.int64, n),
            np.array([row["bbox"] for row in rows], np.float64).reshape(n, 4),
            np.fromiter((float(row["score"]) for row in rows), np.float64, n),
        )

    @classmethod
    def of_corners(
        cls,
        image_ids: NDArray[Any],
        category_ids: NDArray[Any],
        boxes_xyxy: NDArray[np.float32],
        scores: NDArray[np.float32],
    ) -> "DetectionArrays":
        """Of boxes as they were found: only files round."""
        return cls(
            image_ids.astype(np.int64),
            category_ids.astype(np.int64),
            to_xywh(boxes_xyxy.astype(np.float64)),
            scores.astype(np.float64),
        )

    @classmethod
    def of_images(cls, found: Sequence[tuple[int, Boxes]]) -> "DetectionArrays":
        """Of images' ids and their boxes, `class_ids` being category ids."""
        each = [boxes for _, boxes in found]
        return cls.of_corners(
            np.repeat(
                np.array([image_id for image_id, _ in found], np.int64),
                np.array([len(boxes) for boxes in each], np.int64),
            ),
            np.concatenate([np.zeros(0, np.int32), *(boxes.class_ids for boxes in each)]),
            np.concatenate([np.zeros((0, 4), np.float32), *(boxes.boxes_xyxy for boxes in each)]),
            np.concatenate([np.zeros(0, np.float32), *(boxes.scores for boxes in each)]),
        )

    def rows(self) -> Iterable[dict[str, Any]]:
        """COCO results with ids from 1 and areas, as pycocotools wants them."""
        columns = (self.image_ids, self.category_ids, self.boxes_xywh, self.scores)
        for at, (image_id, category_id, box, score) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), start=1
        ):
            yield {
                "id": at,
                "image_id": image_id,
                "category_id": category_id,
                "bbox": box,
                "score": score,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }


@dataclass(frozen=True, eq=False)
class Truth:
    """M images and N objects of an annotation file.

    image_ids: int64 [M]. categories: id and name in the file's order. of_image, category_ids:
    int64 [N]. boxes_xywh: float64 [N, 4], pixels. areas: float64 [N], square pixels, by which
    objects are sorted into sizes. iscrowd: bool [N].
    """

    image_ids: NDArray[np.int64]
    categories: tuple[tuple[int, str], ...]
    of_image: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    boxes_xywh: NDArray[np.float64]
    areas: NDArray[np.float64]
    iscrowd: NDArray[np.bool_]

    @classmethod
    def of_coco(cls, coco: CocoData) -> "Truth":
        """Of annotations as training and labelling see them."""
        table = coco.table
        return cls(
            np.asarray(table.image_ids, np.int64),
            tuple((item.id, item.name) for item in coco.categories.items),
            np.repeat(table.image_ids, np.diff(table.offsets)),
            table.category_ids.astype(np.int64),
            table.boxes_xywh.astype(np.float64),
            table.areas.astype(np.float64),
            np.asarray(table.iscrowd, np.bool_),
        )

    def only(self, images: Collection[int]) -> "Truth":
        """These images and their objects."""
        wanted = np.fromiter(images, np.int64, len(images))
        kept = np.isin(self.of_image, wanted)
        return Truth(
            self.image_ids[np.isin(self.image_ids, wanted)],
            self.categories,
            self.of_image[kept],
            self.category_ids[kept],
            self.boxes_xywh[kept],
            self.areas[kept],
            self.iscrowd[kept],
        )

    def counts(self, images: NDArray[np.int64]) -> dict[int, int]:
        """Objects of each category in these images, crowds left out."""
        counted = np.isin(self.of_image, images) & ~self.iscrowd
        found = np.unique(self.category_ids[counted], return_counts=True)
        return dict(zip(*(column.tolist() for column in found), strict=True))

    def table(self) -> dict[str, Any]:
        """As pycocotools wants it, with ids from 1: it takes 0 for no object."""
        columns = (
            self.of_image, self.category_ids, self.boxes_xywh, self.areas,
            self.iscrowd.astype(np.int64),
        )  # fmt: skip
        names = ("image_id", "category_id", "bbox", "area", "iscrowd")
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return {
            "images": [{"id": i} for i in self.image_ids.tolist()],
            "categories": [{"id": i, "name": name} for i, name in self.categories],
            "annotations": [
                {"id": at, **dict(zip(names, row, strict=True))}
                for at, row in enumerate(rows, start=1)
            ],
        }

    @cached_property
    def hotcoco(self) -> Any:
        """The index of the fast backend, made once for all detections compared with it."""
        from hotcoco import COCO

        listed = np.isin(self.of_image, self.image_ids)
        listed &= np.isin(self.category_ids, [i for i, _ in self.categories])
        return COCO.from_arrays(
            [{"id": i} for i in self.image_ids.tolist()],
            [{"id": i, "name": name} for i, name in self.categories],
            self.of_image[listed],
            self.category_ids[listed],
            self.boxes_xywh[listed],
            area=self.areas[listed],
            iscrowd=self.iscrowd[listed],
        )
