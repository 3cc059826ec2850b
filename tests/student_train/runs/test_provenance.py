"""Where a run comes from."""

import subprocess
from pathlib import Path

from student_train.runs.provenance import changed, source_revision, versions


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


def test_the_revision_says_whether_files_were_modified(tmp_path: Path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-qm", "x")
    clean = source_revision([tmp_path])
    assert clean is not None
    assert (len(clean["commit"]), clean["modified"]) == (40, False)
    (tmp_path / "a.py").write_text("2")
    assert source_revision([tmp_path]) == {**clean, "modified": True}


def test_an_edited_kernel_is_a_modified_source(tmp_path: Path):
    git(tmp_path, "init", "-q")
    for name in ("trainer", "kernels"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    folders = [tmp_path / "trainer", tmp_path / "kernels"]
    assert (source_revision(folders) or {})["modified"] is False
    (tmp_path / "kernels" / "a.py").write_text("2")
    assert (source_revision(folders) or {})["modified"] is True


def test_a_package_inside_a_foreign_repository_has_no_revision(tmp_path: Path):
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-qm", "x", "--allow-empty")
    (tmp_path / "site").mkdir()
    assert source_revision([tmp_path / "site"]) is None
    assert source_revision([tmp_path / "nowhere"]) is None


def test_versions_are_compared_by_name():
    assert versions()["torch"]
    assert changed({"a": "1", "b": "1"}, {"a": "2", "b": "1", "c": "1"}) == ["a: 1 -> 2"]
