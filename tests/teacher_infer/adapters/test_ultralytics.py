"""Ultralytics: as its own predictor says, and quiet towards network and home folder."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from box_store.errors import UsageError
from teacher_infer.adapters.loading import quiet
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec
from teacher_infer.teachers.loaded import load_teacher, weights_files

Pictures = dict[str, np.ndarray]


def spec(model: str | Path, **options: str) -> AdapterSpec:
    return AdapterSpec("ultralytics", str(model), score_floor=0.3, threads=1, options=options)


@pytest.mark.slow
def test_it_predicts_what_the_library_does(yolo_weights: Path, pictures: Pictures) -> None:
    teacher = load_teacher(spec(yolo_weights, image_size="96"))
    import ultralytics

    model: Any = ultralytics.YOLO(str(yolo_weights))
    for name in ("first", "odd", "grey"):
        bgr = np.ascontiguousarray(pictures[name][..., ::-1])
        with quiet():
            theirs = model.predict(bgr, conf=0.3, imgsz=96, max_det=300, verbose=False)[0].boxes
        ours = teacher.predict([pictures[name]])[0]
        assert len(ours) == min(len(theirs), 100) > 0
        assert ours.scores == pytest.approx(theirs.conf.numpy()[:100], abs=1e-6)
        assert ours.boxes_xyxy == pytest.approx(theirs.xyxy.numpy()[:100], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["rtdetr-l.yaml", "yolo11n-seg.yaml"])
def test_other_families_build_from_their_configs(model: str, pictures: Pictures) -> None:
    teacher = load_teacher(spec(model, image_size="96"))
    assert len(teacher.predict([pictures["first"]])) == 1
    assert teacher.licence == "AGPL-3.0"


@pytest.mark.slow
def test_models_without_boxes_are_refused() -> None:
    with pytest.raises(AdapterError, match="is a model for classify"):
        load_teacher(spec("yolo11n-cls.yaml"))


LOAD = """
import json, sys
from teacher_infer.teachers.loaded import AdapterSpec, load_teacher
load_teacher(AdapterSpec("ultralytics", "yolo11n.yaml"))
from ultralytics.utils import ONLINE, SETTINGS, USER_CONFIG_DIR
from ultralytics.utils.events import events
print(json.dumps([ONLINE, SETTINGS["sync"], str(USER_CONFIG_DIR), events.enabled]))
"""


@pytest.mark.slow
def test_it_reports_nothing_and_leaves_the_home_folder_alone(tmp_path: Path) -> None:
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("YOLO_") and key != "XDG_CONFIG_HOME"
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment | {"HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    # JSON alone: whatever the library logs must not reach stdout
    online, sync, config, reports = json.loads(done.stdout)
    assert (online, sync, reports) == (False, False, False)
    assert not Path(config).exists()
    assert not [path for path in tmp_path.rglob("*") if "ltralytics" in path.name]


@pytest.mark.slow
def test_a_missing_file_or_an_impossible_download_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLO_OFFLINE", "True")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(AdapterError, match=r"yolo11n.pt isn't on this machine, and YOLO_OFFLINE"):
        load_teacher(spec("yolo11n.pt"))
    (tmp_path / "text.pt").write_text("no model")
    with pytest.raises(AdapterError, match=r"can't load .*text.pt"):
        load_teacher(spec(tmp_path / "text.pt"))


def test_files_are_named_before_the_library_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights_files(spec("yolo11n.pt")) == []
    downloaded = tmp_path / "teach-detr" / "ultralytics" / "yolo11n.pt"
    downloaded.parent.mkdir(parents=True)
    downloaded.touch()
    assert weights_files(spec("yolo11n.pt")) == [downloaded]
    monkeypatch.setenv("TEACH_DETR_CACHE", str(tmp_path / "cache"))
    assert weights_files(spec("yolo11n.pt")) == []
    (tmp_path / "cache" / "ultralytics").mkdir(parents=True)
    (tmp_path / "cache" / "ultralytics" / "yolo11n.pt").touch()
    assert weights_files(spec("yolo11n.pt")) == [tmp_path / "cache" / "ultralytics" / "yolo11n.pt"]
    with pytest.raises(AdapterError, match="weights not found: expected a file at"):
        weights_files(spec(tmp_path / "absent.pt"))
    with pytest.raises(UsageError, match=r"expected a \.pt file, a published name"):
        weights_files(spec("yolo11n"))
