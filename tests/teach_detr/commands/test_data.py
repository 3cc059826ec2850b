"""`teach-detr data`, and `--data` of the other commands, on sets that lie as tools leave them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from teach_detr.cli import main


@pytest.fixture
def yolo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TEACH_DETR_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "set"
    rng = np.random.default_rng(0)
    for split, n in (("train", 8), ("val", 4)):
        for at in range(n):
            image = root / "images" / split / f"{at}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(image)
            label = root / "labels" / split / f"{at}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(f"{at % 2} 0.5 0.5 0.4 0.5\n")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    return root


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_what_is_found_is_said(yolo: Path, call) -> None:
    code, out, err = call("data", yolo)
    assert code == 0
    assert "is taken as YOLO (data.yaml); splits: train, val" in err
    assert "train" in out
    assert "dog" in out
    code, out, _ = call("data", yolo, "--json")
    told = json.loads(out)
    assert (told["form"], told["splits"][0]["images"]) == ("yolo", 8)
    assert told["splits"][0]["classes"] == {"cat": 4, "dog": 4}


def test_it_is_written_as_coco(yolo: Path, call, tmp_path: Path) -> None:
    code, out, _ = call("data", yolo, "--out", tmp_path / "coco")
    assert code == 0
    assert "instances_train.json: 8 images, 8 boxes" in out
    code, _, err = call("data", tmp_path / "coco")
    assert "is taken as COCO" in err


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("nowhere",), 1, "no folder or file"),
        (("SET", "--val", "0.2"), 2, "give --out DIR too"),
        (("SET", "--form", "vox"), 2, "Did you mean 'voc'"),
        (("SET", "--difficult", "drop"), 2, "YOLO has no option 'difficult'"),
    ],
)
def test_mistakes_end_in_a_sentence(yolo: Path, call, words, code: int, text: str) -> None:
    got, _, err = call("data", *(yolo if word == "SET" else word for word in words))
    assert got == code
    assert text in err


def test_teachers_are_compared_with_a_split_of_a_yolo_set(yolo: Path, call, tmp_path: Path) -> None:
    from box_store import BoxStore, DatasetInfo, import_results
    from box_store.forms.opening import annotations_of

    coco = annotations_of(f"{yolo},split=val")
    store = BoxStore.open_or_create(
        tmp_path / "store", coco.categories, DatasetInfo("val", coco.sha256, 4)
    )
    rows = [
        {"image_id": i, "category_id": int(coco.annotations_of(i).category_ids[0]), "score": 0.9}
        | {"bbox": coco.annotations_of(i).boxes_xywh[0].tolist()}
        for i in coco.image_ids
    ]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    import_results(store, "lab", [tmp_path / "r.json"], coco.images)
    for place in (("--data", yolo, "--split", "val"), ("--annotations", f"{yolo},split=val")):
        code, out, err = call("teachers", store.path, *place, "--json")
        assert code == 0, err
        assert json.loads(out)["teachers"][0]["AP"] == pytest.approx(1)
    # the store speaks of other images than the other split
    code, _, err = call("teachers", store.path, "--data", yolo, "--split", "train")
    assert code != 0
    code, _, err = call("teachers", store.path)
    assert (code, "--annotations FILE or --data SRC" in err) == (2, True)


def test_a_student_is_trained_on_a_yolo_set(
    yolo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from student_train.cli import main as train

    words = ["train", "--preset", "dino-micro", "--data", yolo, "--teachers", "none", "--dry-run"]
    words += ["--out", tmp_path / "run", "batch_size=2", "data.workers=0"]
    monkeypatch.setattr("sys.argv", ["student-train", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        train()
    out = "".join(capsys.readouterr())
    assert not ended.value.code
    assert "8 training images with 8 boxes, 2 categories" in out
    assert "is taken as YOLO" in out
