"""Rows of class heads and label embeddings find their class by name."""

import torch

from student_train.models.class_rows import ClassRows

HEAD = "heads.classes.0.weight"
LABELS = "denoising.label_embedding.weight"


def rows(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None].expand(-1, 2).clone()


def test_rows_follow_their_names_and_the_rest_begins_anew():
    classes = ClassRows(("car", "bus", "truck"), ("truck", "polyp", "car"))
    fitted = classes.fit(HEAD, rows(1, 2, 3), rows(-1, -2, -3))
    assert fitted is not None
    assert fitted[:, 0].tolist() == [3, -2, 1]
    assert classes.describe() == "class head: 2 of 3 classes by name, the rest anew (polyp)"


def test_the_row_of_no_class_is_carried_over():
    classes = ClassRows(("a", "b"), ("b", "a", "c"))
    fitted = classes.fit(LABELS, rows(1, 2, 9), rows(-1, -2, -3, -4))
    assert fitted is not None
    assert fitted[:, 0].tolist() == [2, 1, -3, 9]


def test_equal_tables_keep_every_row_and_other_parameters_too():
    entry = rows(1, 2, 3)
    same = ClassRows(("a", "", "b"), ("a", "", "b"))
    assert same.fit(HEAD, entry, rows(0, 0, 0)) is entry
    assert same.describe() == "class head: 2 of 2 classes by name"
    other = ClassRows(("a", "b", "c"), ("c", "b", "a"))
    assert other.fit("decoder.layers.0.weight", entry, rows(0, 0, 0)) is entry


def test_rows_without_names_are_not_taken_by_their_place():
    classes = ClassRows(None, ("a", "b"))
    assert classes.fit(HEAD, rows(1, 2), rows(0, 0)) is None
    assert "does not name its classes" in classes.describe()


def test_a_name_that_stands_twice_is_no_name():
    classes = ClassRows(("a", "a", "b"), ("b", "a", "c"))
    assert classes.pairs == {0: 2}
