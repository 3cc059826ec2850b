"""Bad images and bad teachers cost themselves, and nothing else."""

from PIL import Image

from box_store.store.reader import read_images
from box_store.store.store import BoxStore

from .conftest import statuses


def test_every_kind_of_bad_image_is_recorded_and_skipped(
    cli, make_folder, request_of, edit_annotations, store
):
    data = make_folder(12)
    photos = data / "train"
    good = (photos / "000001.jpg").read_bytes()
    (photos / "000002.jpg").unlink()
    (photos / "000003.jpg").write_bytes(good[: len(good) // 2])
    (photos / "000004.jpg").write_bytes(b"<html></html>")
    Image.new("RGB", (48, 64)).save(photos / "000005.jpg")
    Image.new("L", (64, 48), 90).save(photos / "000006.jpg")
    Image.new("CMYK", (64, 48)).save(photos / "000007.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(photos / "000008.jpg", exif=exif)
    Image.new("RGB", (1, 1)).save(photos / "000009.jpg")
    (photos / "000010.jpg").rename(photos / "größe 写真.jpg")
    (data / "outside.jpg").write_bytes(good)

    def change(document):
        document["images"][8] |= {"width": 1, "height": 1}
        document["images"][9]["file_name"] = "größe 写真.jpg"
        document["images"][10]["file_name"] = "../outside.jpg"

    edit_annotations(data, "train", change)
    code, out, _ = cli("run", "--local", *request_of(data))
    assert code == 0
    bad = {image: status for image, status in statuses(store).items() if status != "ok"}
    assert bad == {
        2: "missing_file",
        3: "truncated",
        4: "not_an_image",
        5: "size_mismatch",
        11: "unsafe_path",
    }
    assert "1 missing_file, 1 not_an_image, 1 size_mismatch, 1 truncated, 1 unsafe_path" in out
    assert "--redo-bad" in out
    rows = {row["image_id"]: row for row in read_images(BoxStore.open(store), "tiny").to_pylist()}
    assert "48x64 px, the annotations say 64x48" in rows[5]["error"]
    assert rows[10]["file_name"] == "größe 写真.jpg"
    assert rows[9]["width"] == 1


def test_bad_images_that_were_repaired_are_labelled_on_request(cli, make_folder, request_of, store):
    data = make_folder(6)
    photo = data / "train" / "000002.jpg"
    content = photo.read_bytes()
    photo.unlink()
    cli("run", "--local", *request_of(data))
    assert statuses(store)[2] == "missing_file"
    photo.write_bytes(content)
    assert "nothing to do" in cli("run", "--local", *request_of(data))[1]
    assert cli("run", "--local", "--redo-bad", *request_of(data))[0] == 0
    assert set(statuses(store).values()) == {"ok"}


def test_one_teacher_fails_the_other_is_done_and_the_run_ends_with_an_error(
    cli, make_folder, request_of, store, tmp_path
):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model at all")
    code, out, err = cli(
        *("run", "--local", *request_of(make_folder(3))),
        *("--teacher", f"broken=onnx:{broken},format=boxes"),
    )
    assert code == 1
    assert "failed" in out
    assert "broken.onnx" in err
    assert len(statuses(store)) == 3
