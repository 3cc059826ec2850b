"""Images in COCO layout with ground truth and teacher boxes, augmented together, in batches.

`coco.py` joins image, annotations and a selection of teacher boxes by image id, `transforms.py`
moves all of them together, `loader.py` makes batches in an order that depends on seed and epoch
alone.
"""

from student_train.data.coco import CocoDetection, Sample
from student_train.data.images import ImageError, ImageProblem, read_image
from student_train.data.loader import Batch, Loader, collate, make_loader
from student_train.data.transforms import EvalTransform, Scene, TrainTransform

__all__ = [
    "Batch",
    "CocoDetection",
    "EvalTransform",
    "ImageError",
    "ImageProblem",
    "Loader",
    "Sample",
    "Scene",
    "TrainTransform",
    "collate",
    "make_loader",
    "read_image",
]
