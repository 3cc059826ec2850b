"""What detectors saw, stored once and read by everything.

A box store is a folder of Parquet files: the boxes of any number of teachers on one data set, in
pixels of the original images and the data set's own category ids, with every teacher's provenance.
It is written unit by unit, exactly once, whatever dies on the way; read back whole, image by image,
or as a memory-mapped selection for a trainer; and queried in SQL through `box_store.query`, the
only module that needs DuckDB.
"""

from box_store.boxes import Boxes
from box_store.categories import Categories, Category, ClassSpace
from box_store.coco.annotations import Annotations, CocoData, ImageInfo, load_coco
from box_store.errors import (
    DataError,
    FingerprintMismatch,
    FormatError,
    StoreError,
    TeachDetrError,
    UnknownTeacher,
    UsageError,
)
from box_store.fuse import FusionConfig, fuse
from box_store.places.image_files import image_path
from box_store.results.exporting import export_results, iter_results
from box_store.results.importing import ImportReport, import_results
from box_store.selection.selecting import Selection, SelectionSpec, TeacherFilter, select
from box_store.store.reader import boxes_of, iter_units, known_images, read_boxes, read_images
from box_store.store.records import (
    DatasetInfo,
    ImageRow,
    TeacherRecord,
    image_ids_sha256,
    split_units,
)
from box_store.store.store import BoxStore

__all__ = [
    "Annotations",
    "BoxStore",
    "Boxes",
    "Categories",
    "Category",
    "ClassSpace",
    "CocoData",
    "DataError",
    "DatasetInfo",
    "FingerprintMismatch",
    "FormatError",
    "FusionConfig",
    "ImageInfo",
    "ImageRow",
    "ImportReport",
    "Selection",
    "SelectionSpec",
    "StoreError",
    "TeachDetrError",
    "TeacherFilter",
    "TeacherRecord",
    "UnknownTeacher",
    "UsageError",
    "boxes_of",
    "export_results",
    "fuse",
    "image_ids_sha256",
    "image_path",
    "import_results",
    "iter_results",
    "iter_units",
    "known_images",
    "load_coco",
    "read_boxes",
    "read_images",
    "select",
    "split_units",
]
