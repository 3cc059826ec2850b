"""An earlier student as a teacher."""

from pathlib import Path

import numpy as np
import pytest

from box_store.errors import TeachDetrError
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec
from teacher_infer.teachers.loaded import load_teacher, weights_files

Pictures = dict[str, np.ndarray]


@pytest.mark.slow
def test_class_ids_are_indices_into_the_names_not_categories(
    student_run: Path, pictures: Pictures
) -> None:
    teacher = load_teacher(AdapterSpec("student", str(student_run), score_floor=0.001))
    assert teacher.class_names == ("person", "kite", "car")
    found = teacher.predict(list(pictures.values()))
    assert {int(one) for boxes in found for one in boxes.class_ids} <= {0, 1, 2}


@pytest.mark.slow
def test_its_files_are_the_weights_and_the_configuration(student_run: Path) -> None:
    names = [path.name for path in weights_files(AdapterSpec("student", str(student_run)))]
    assert names == ["config.json", "best.safetensors"]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    spec = AdapterSpec("student", str(tmp_path))
    with pytest.raises(AdapterError, match=r"not a run of student-train.*config\.json"):
        weights_files(spec)
    with pytest.raises(TeachDetrError, match="is not a run folder"):
        load_teacher(spec)
