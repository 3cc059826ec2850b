from pathlib import Path

import pytest

from box_store.errors import DataError
from box_store.places.image_files import image_path


@pytest.mark.parametrize("name", ["a.jpg", "sub/a.jpg", "Straße/猫 №1.jpg", "..a.jpg"])
def test_a_name_below_the_folder_is_joined(tmp_path: Path, name: str) -> None:
    assert image_path(tmp_path, name) == tmp_path.resolve() / name


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../a.jpg", "sub/../../a.jpg", "C:\\a.jpg", "..\\a.jpg", "a\0.jpg"],
)
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="image"):
        image_path(tmp_path, name)


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "images"
    root.mkdir()
    (tmp_path / "secret.jpg").touch()
    (root / "a.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(DataError, match=r"a link to .*secret\.jpg"):
        image_path(root, "a.jpg")


def test_the_image_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert image_path(tmp_path / "link", "a.jpg") == (tmp_path / "real" / "a.jpg").resolve()
