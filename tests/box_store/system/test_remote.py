"""Stores, images and annotations in a bucket of an S3-compatible server on this machine."""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from box_store.check import check_store
from box_store.coco.annotations import load_coco
from box_store.errors import DataError, StoreError
from box_store.places import files
from box_store.places.image_files import image_path
from box_store.places.lease import TakenOver, hold
from box_store.places.locations import RemoteError, RemotePath, location, staged
from box_store.query import open_store, run_sql
from box_store.results.importing import import_results
from box_store.selection.selecting import Selection, SelectionSpec, select
from box_store.store.reader import read_boxes
from box_store.store.records import DatasetInfo
from box_store.store.store import BoxStore

INFO = DatasetInfo("toy", "0" * 64, 6)


@pytest.fixture
def root(server: Any, request: Any) -> RemotePath:
    found = location(server.url(f"bucket/{request.node.name}"))
    assert isinstance(found, RemotePath)
    return found


def test_a_store_in_a_bucket_holds_what_a_local_one_does(maker: Any, root: RemotePath) -> None:
    record = maker.record()
    # as a command line hands it over: Path swallows a slash
    remote = BoxStore.open_or_create(Path(str(root)), maker.categories, INFO)  # type: ignore[arg-type]
    local = maker.store()
    for store in (remote, local):
        maker.fill(store, record)
        assert not store.write_unit("one", 0, [maker.row(i) for i in maker.images(2)])
    again = BoxStore.open(root)
    assert again.units_done("one") == {0, 1, 2}
    assert read_boxes(again, "one").equals(read_boxes(local, "one"))
    assert check_store(root).problems == []
    sql = "SELECT teacher, count(*) AS n FROM boxes GROUP BY 1"
    assert run_sql(open_store(root), sql).equals(run_sql(open_store(local.path), sql))
    chosen = select(again, SelectionSpec())
    assert chosen.is_file()
    assert (
        Selection.open(chosen).counts() == Selection.open(select(local, SelectionSpec())).counts()
    )


def test_a_writer_killed_between_its_files_leaves_no_unit(
    maker: Any, root: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BoxStore.open_or_create(root, maker.categories, INFO)
    store.register(maker.record())
    rows = [maker.row(image) for image in maker.images(2)]
    put, done = RemotePath.put, []

    def dies(self: RemotePath, data: bytes) -> None:
        done.append(self.key)
        if len(done) == 2:
            raise KeyboardInterrupt
        put(self, data)

    monkeypatch.setattr(RemotePath, "put", dies)
    with pytest.raises(KeyboardInterrupt):
        store.write_unit("one", 0, rows)
    assert "/boxes/" in done[0]
    assert store.units_done("one") == set()
    monkeypatch.setattr(RemotePath, "put", put)
    assert store.write_unit("one", 0, rows)
    assert not store.write_unit("one", 0, rows)
    assert store.units_done("one") == {0}


def test_a_changed_object_is_fetched_anew_and_an_unchanged_one_once(root: RemotePath) -> None:
    file = root / "a.json"
    file.put(b"first")
    copy = staged(file)
    assert copy.read_bytes() == b"first"
    assert staged(file) == copy
    file.put(b"second")
    assert staged(file).read_bytes() == b"second"


def test_annotations_and_image_names_below_a_url(maker: Any, root: RemotePath) -> None:
    (root / "a.json").put(maker.annotations(3).read_bytes())
    coco = load_coco(root / "a.json")
    assert len(coco.images) == 3
    assert coco.path == root / "a.json"
    with pytest.raises(DataError, match="no annotation file at s3://bucket"):
        load_coco(root / "b.json")
    assert image_path(root, "x/1.jpg") == root / "x" / "1.jpg"
    for name in ("../1.jpg", "/etc/passwd", "a/../../b.jpg", "..\\b.jpg"):
        with pytest.raises(DataError, match="image"):
            image_path(root, name)


def test_a_server_that_went_away_is_a_sentence_and_the_store_goes_on_when_it_is_back(
    maker: Any, root: RemotePath, server: Any
) -> None:
    store = BoxStore.open_or_create(root, maker.categories, INFO)
    maker.fill(store, maker.record(), units=[0])
    backend = server.fs.get_file_info(fs.FileSelector("bucket", recursive=True))
    assert backend
    server.stop()
    try:
        with pytest.raises(StoreError, match=r"cannot .* s3://bucket.*run the same command again"):
            store.write_unit("one", 1, [maker.row(image) for image in maker.images(4)[2:]])
        with pytest.raises(RemoteError, match="run the same command again"):
            BoxStore.open(root)
    finally:
        server.start()
    assert store.write_unit("one", 1, [maker.row(image) for image in maker.images(4)[2:]])
    assert BoxStore.open(root).units_done("one") == {0, 1}


def test_a_wrong_bucket_or_wrong_credentials_are_a_sentence(
    maker: Any, root: RemotePath, server: Any
) -> None:
    with pytest.raises(StoreError, match="no box store at s3://nobucket"):
        BoxStore.open(location(server.url("nobucket/store")))
    with pytest.raises(StoreError, match=r"NO_SUCH_BUCKET|bucket does not exist"):
        BoxStore.create(location(server.url("nobucket/store")), maker.categories, INFO)
    server.require_credentials(True)
    try:
        with pytest.raises(StoreError, match="credentials are right"):
            BoxStore.open(root)
    finally:
        server.require_credentials(False)


def test_one_driver_at_a_time(root: RemotePath) -> None:
    lease_file = root / "lease.json"
    with hold(root, lapses_s=30) as first:
        first.check()
        with pytest.raises(StoreError, match="is being written by process"), hold(root):
            pass
    assert not lease_file.exists()
    with hold(root) as first:
        lease_file.put(b'{"owner": "another", "pid": 7, "host": "elsewhere"}')
        with pytest.raises(StoreError, match="was taken over by process 7 on elsewhere"):
            first.check()
    # the first does not let go of what it no longer holds
    assert lease_file.exists()


def test_a_lapsed_lease_and_one_of_a_dead_process_are_taken_over(root: RemotePath) -> None:
    lease_file = root / "lease.json"
    for host, pid, lapses_s in (("elsewhere", 1, 0.0), (socket.gethostname(), 2**22 + 1, 1e9)):
        lease_file.put(
            json.dumps({"owner": "x", "host": host, "pid": pid, "lapses_s": lapses_s}).encode()
        )
        with hold(root) as lease:
            lease.check()
            found = json.loads(lease_file.read_bytes())
            assert found["owner"] != "x"
            assert (found["host"], found["pid"]) == (socket.gethostname(), os.getpid())


def test_a_lease_is_taken_over_at_will_and_the_displaced_learn_of_it(root: RemotePath) -> None:
    with hold(root, lapses_s=4.0) as first:
        with pytest.raises(StoreError, match="at once with --takeover"), hold(root):
            pass
        with hold(root, takeover=True) as second:
            second.check()
            # by its next renewal the first knows, without having asked
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                try:
                    first.keep()
                except TakenOver:
                    break
                time.sleep(0.05)
            with pytest.raises(TakenOver, match="this run stops"):
                first.keep()
            with pytest.raises(TakenOver):
                first.check()
            # and does not take it back
            second.check()


def test_an_import_holds_the_store_and_stops_when_it_is_taken(
    maker: Any, root: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BoxStore.create(root, maker.categories, INFO)
    rows = [
        {"image_id": image.id, "category_id": 1, "bbox": [1, 1, 5, 5], "score": 0.5}
        for image in maker.images(6)
    ]
    request = ("lab", [maker.json_file("r.json", rows)], maker.images(6))
    with hold(root):
        with pytest.raises(StoreError, match="is being written by process"):
            import_results(store, *request, unit_size=2)
        report = import_results(store, *request, unit_size=2, takeover=True)
    assert report.units_written == 3
    write_unit = BoxStore.write_unit

    def taken_meanwhile(self: BoxStore, *arguments: Any, **options: Any) -> bool:
        written = write_unit(self, *arguments, **options)
        (root / "lease.json").put(b'{"owner": "another", "pid": 7, "host": "elsewhere"}')
        return written

    monkeypatch.setattr(BoxStore, "write_unit", taken_meanwhile)
    with pytest.raises(TakenOver):
        import_results(store, "two", *request[1:], unit_size=2, takeover=True)
    assert store.units_done("two") == {0}


def test_a_local_store_needs_no_lease(tmp_path: Path) -> None:
    with hold(tmp_path) as one, hold(tmp_path) as two:
        one.check()
        two.check()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_fails_half_way_is_not_put(root: RemotePath) -> None:
    with pytest.raises(RuntimeError), files.replacing(root / "a"):
        raise RuntimeError
    assert not (root / "a").exists()
