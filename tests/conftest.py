"""What every test shares: quiet frameworks, no network, and the optional folder of real data."""

import os
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from tests.tally import (
    pytest_addoption,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
    tally,
)

__all__ = [
    "pytest_addoption",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
    "pytest_testnodedown",
    "tally",
]

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests come first, so that no process is left alone with one."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


class S3Server:
    """A server on this machine that speaks S3, with a bucket `bucket`; it keeps what it holds over
    `stop` and `start`.
    """

    def __init__(self) -> None:
        self.port = 0
        self.start()
        self.fs = fs.S3FileSystem(
            endpoint_override=f"127.0.0.1:{self.port}",
            scheme="http",
            region="us-east-1",
            access_key="any",
            secret_key="any",
            allow_bucket_creation=True,
        )
        self.fs.create_dir("bucket")

    def start(self) -> None:
        self._server = moto_server().ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        self._server.stop()

    def url(self, path: str) -> str:
        return f"s3://{path}?scheme=http&endpoint_override=127.0.0.1:{self.port}"

    def upload(self, folder: Path, path: str) -> str:
        """The URL of a copy of a folder."""
        fs.copy_files(str(folder), path, destination_filesystem=self.fs)
        return self.url(path)

    def names(self, path: str) -> list[str]:
        """What lies below, as relative paths."""
        found = self.fs.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
        return sorted(f.path[len(path) + 1 :] for f in found if f.type == fs.FileType.File)

    def require_credentials(self, wanted: bool) -> None:
        url = f"http://127.0.0.1:{self.port}/moto-api/reset-auth"
        body = b"0" if wanted else b"Infinity"
        headers = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(url, body, headers)).close()


def moto_server() -> Any:
    return pytest.importorskip("moto.server", reason="needs moto[server]")


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[S3Server]:
    made = S3Server()
    yield made
    made.stop()


@pytest.fixture
def server(_s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """An S3 server, credentials for it, and an empty cache."""
    monkeypatch.setenv("TEACH_DETR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    return _s3_server
