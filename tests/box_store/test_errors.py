import pytest

from box_store import errors


def test_a_usage_error_ends_with_2_and_everything_else_with_1() -> None:
    assert errors.UsageError("x").exit_code == 2
    assert errors.FormatError("x").exit_code == errors.DataError("x").exit_code == 1


def test_every_error_is_caught_as_the_projects_own() -> None:
    for kind in (errors.DataError, errors.FormatError, errors.FingerprintMismatch):
        assert issubclass(kind, errors.TeachDetrError)
    assert issubclass(errors.UnknownTeacher, errors.StoreError)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("yolx", " Did you mean 'yolox'?"), ("YOLOX", " Did you mean 'yolox'?"), ("zzzz", "")],
)
def test_the_nearest_name_is_suggested(name: str, expected: str) -> None:
    assert errors.nearest(name, ["yolox", "retinanet"]) == expected
