"""Official checkpoints: into our students and back.

A student's own parameter names are the key; `official_names` says under which official names each
is stored. What detrex and mmdet wrote is translated to official names first (`translate`).
"""

from student_train.models.official.foreign import Translation, translate
from student_train.models.official.loading import (
    LoadReport,
    export_official,
    load_official,
    load_official_file,
)
from student_train.models.official.names import detect_family, official_names
from student_train.models.weights_file import read_checkpoint

__all__ = [
    "LoadReport",
    "Translation",
    "detect_family",
    "export_official",
    "load_official",
    "load_official_file",
    "official_names",
    "read_checkpoint",
    "translate",
]
