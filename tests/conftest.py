"""What every test shares: quiet frameworks, no network, and the optional folder of real data."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("YOLO_OFFLINE", "True")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("OMP_NUM_THREADS", "2")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real photos, detectors and official numbers: TEACH_DETR_SHARED, or `shared` beside us."""
    folder = Path(os.environ.get("TEACH_DETR_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set TEACH_DETR_SHARED to a folder that holds it")
    return folder
