"""COCO annotations and results JSON <-> store: the names that other packages use."""

from box_store.coco_annotations import Annotations, CocoData, ImageInfo, load_coco
from box_store.coco_import import ImportReport, import_results
from box_store.coco_results import detections, export_results, iter_results
from box_store.image_files import image_path

__all__ = [
    "Annotations",
    "CocoData",
    "ImageInfo",
    "ImportReport",
    "detections",
    "export_results",
    "image_path",
    "import_results",
    "iter_results",
    "load_coco",
]
