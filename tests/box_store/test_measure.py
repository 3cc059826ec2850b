from pathlib import Path

import pytest

from box_store.measure import measure


def test_every_figure_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measure(tmp_path, n_images=3, n_boxes=4)
    printed = capsys.readouterr().out
    assert "12 in 3 images" in printed
    for figure in ("bytes a box", "boxes/CPU s", "microseconds", "(SQL)"):
        assert figure in printed
