"""Images in COCO layout with ground truth and teacher boxes, augmented together, in batches.

`coco.py` joins image, annotations and a selection of teacher boxes by image id, `transforms.py`
moves all of them together, `order.py` says which images make a batch, from seed and epoch alone,
`loader.py` has processes make them (`batch.py`), `prefetch.py` sends them ahead to a GPU.
"""

from student_train.data.batch import Batch, BoxSets, collate
from student_train.data.coco import CocoDetection, Sample
from student_train.data.images import ImageError, ImageProblem, read_image
from student_train.data.loader import Loader, make_loader
from student_train.data.prefetch import prefetch
from student_train.data.transforms import (
    AsStored,
    EvalTransform,
    Scene,
    TrainTransform,
    Transform,
)

__all__ = [
    "AsStored",
    "Batch",
    "BoxSets",
    "CocoDetection",
    "EvalTransform",
    "ImageError",
    "ImageProblem",
    "Loader",
    "Sample",
    "Scene",
    "TrainTransform",
    "Transform",
    "collate",
    "make_loader",
    "prefetch",
    "read_image",
]
