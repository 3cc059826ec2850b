"""`teacher-infer import` and `export`."""

import json

from box_store.store.reader import read_boxes
from box_store.store.store import BoxStore


def test_results_go_out_and_come_in(cli, make_folder, request_of, store, tmp_path):
    data = make_folder(6)
    cli("run", "--local", *request_of(data))
    out_file = tmp_path / "tiny.json"
    code, out, _ = cli("export", "--store", store, "--teacher", "tiny", "--out", out_file)
    assert (code, out.strip()) == (0, f"{out_file}: 6 boxes")
    annotations = data / "annotations" / "instances_train.json"
    copy = tmp_path / "copy"
    code, out, _ = cli(
        *("import", "--store", copy, "--name", "lab", "--results", out_file),
        *("--annotations", annotations, "--licence", "CC0-1.0"),
    )
    first, rounded = out.splitlines()
    assert (code, first) == (0, "lab: 6 boxes of 6 images")
    assert "rounded to 1/16 px" in rounded
    assert BoxStore.open(copy).record("lab").licence == "CC0-1.0"
    first = read_boxes(BoxStore.open(store), "tiny").to_pydict()
    again = read_boxes(BoxStore.open(copy), "lab").to_pydict()
    assert again["image_id"] == first["image_id"]
    assert again["x2"] == first["x2"]
    code, out, _ = cli(
        *("import", "--store", copy, "--name", "lab", "--results", out_file),
        *("--licence", "CC0-1.0"),
    )
    assert (code, out.strip()) == (0, "lab: these results are in the store already")
    fused = tmp_path / "fused.json"
    assert cli("export", "--store", copy, "--fused", "--out", fused)[0] == 0
    assert len(json.loads(fused.read_text())) == 6


def test_results_of_other_images_are_refused_with_the_ids(cli, make_folder, store, tmp_path):
    data = make_folder(2)
    results = tmp_path / "results.json"
    entry = {"image_id": 77, "category_id": 2, "bbox": [1, 1, 5, 5], "score": 0.5}
    results.write_text(json.dumps([entry]))
    annotations = data / "annotations" / "instances_train.json"
    code, _, err = cli(
        *("import", "--store", store, "--name", "lab", "--results", results),
        *("--annotations", annotations),
    )
    assert code == 1
    assert "77" in err
    assert "unknown category ids: 2" in err
    assert BoxStore.open(store).teachers == {}
    code, _, err = cli("import", "--store", store, "--name", "lab", "--results", results)
    assert code == 2
    assert "annotation file" in err
