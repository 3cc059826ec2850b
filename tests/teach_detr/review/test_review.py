"""A review: what is doubtful and how much, its page, and the way to people and back."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from box_store import Boxes, BoxStore, DatasetInfo, ImageRow, TeacherRecord, image_ids_sha256
from box_store.errors import DataError, UsageError
from box_store.forms.opening import annotations_of, open_data
from box_store.outgoing.coco import write_coco
from box_store.outgoing.corrections import apply, read_suggestions
from teach_detr.cli import main
from teach_detr.review.queue import PRIOR, find_doubts
from teach_detr.review.review import write_review

SIZE = (100, 80)
DOG, CAT, CAR = (10, 10, 40, 40), (50, 30, 90, 70), (5, 50, 35, 75)
# labels, and what two teachers see: (class, corners, score)
LABELS = {
    "a.jpg": [("dog", DOG)],
    "b.jpg": [("dog", DOG), ("cat", CAT)],
    "c.jpg": [("cat", DOG)],
    "d.jpg": [("dog", DOG)],
    "e.jpg": [],
}
SEEN = {
    "one": {
        "a.jpg": [("dog", DOG, 0.9), ("cat", CAT, 0.8)],
        "b.jpg": [("dog", DOG, 0.9)],
        "c.jpg": [("dog", DOG, 0.7)],
        "d.jpg": [("dog", DOG, 0.9)],
        "e.jpg": [("dog", DOG, 0.9), ("cat", CAT, 0.5)],
    },
    "two": {
        "a.jpg": [("cat", (51, 30, 90, 70), 0.6)],
        "b.jpg": [],
        "c.jpg": [("cat", DOG, 0.5)],
        "d.jpg": [],
        "e.jpg": [("dog", DOG, 0.9)],
    },
}
IDS = {"dog": 1, "cat": 2}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TEACH_DETR_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "set"
    images, rows = [], []
    for at, (name, labels) in enumerate(LABELS.items()):
        (root / "train").mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(at).integers(0, 255, (*SIZE[::-1], 3), np.uint8)
        Image.fromarray(noise).save(root / "train" / name)
        images.append({"id": at, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        for category, (x1, y1, x2, y2) in labels:
            box = [x1, y1, x2 - x1, y2 - y1]
            rows.append(
                {"id": len(rows), "image_id": at, "category_id": IDS[category], "bbox": box}
            )
    categories = [{"id": key, "name": name} for name, key in IDS.items()]
    images[-1]["labelled"] = False
    document = {"images": images, "annotations": rows, "categories": categories}
    (root / "annotations").mkdir()
    (root / "annotations/instances_train.json").write_text(json.dumps(document))
    return root


@pytest.fixture
def store(data: Path, tmp_path: Path) -> BoxStore:
    coco = annotations_of(data, labelled=False)
    made = BoxStore.create(
        tmp_path / "store", coco.categories, DatasetInfo("train", coco.sha256, len(LABELS))
    )
    for name, seen in SEEN.items():
        ids = list(coco.image_ids)
        record = TeacherRecord(
            name=name, adapter="onnx", model="m", weights_sha256="", licence="MIT",
            class_map=dict(IDS), options={}, image_ids_sha256=image_ids_sha256(ids),
            unit_size=10, n_images=len(ids), n_units=1,
        )  # fmt: skip
        made.register(record)
        rows = []
        for image in coco.images:
            found = sorted(seen[image.file_name], key=lambda row: -row[2])
            boxes = Boxes(
                np.array([row[1] for row in found], np.float32).reshape(-1, 4),
                np.array([row[2] for row in found], np.float32),
                np.array([IDS[row[0]] for row in found], np.int32),
                *SIZE,
            )
            rows.append(ImageRow(image.id, image.file_name, *SIZE, boxes))
        made.write_unit(name, 0, rows)
    return made


def test_each_kind_of_doubt_and_its_chance(store: BoxStore, data: Path, tmp_path: Path) -> None:
    queue = find_doubts(store, annotations_of(data, labelled=False), tmp_path, least=0.0)
    found = {page.image.file_name: page for page in queue.pages}
    (missing,) = found["a.jpg"].doubts
    assert (missing.kind, missing.category, missing.teachers) == ("missing", "cat", ("one", "two"))
    assert missing.chance == pytest.approx(0.8, abs=1e-3)
    (unfound,) = found["b.jpg"].doubts
    # of two cats one is found
    assert (unfound.kind, unfound.label) == ("unfound", "cat")
    assert unfound.chance == pytest.approx(PRIOR / (PRIOR + (1 - PRIOR) * 0.5))
    (other,) = found["c.jpg"].doubts
    assert (other.kind, other.category, other.label) == ("class", "dog", "cat")
    assert "d.jpg" not in found
    guesses = {doubt.category: doubt.chance for doubt in found["e.jpg"].doubts}
    # both are sure of the dog; the cat has 0.5 of one of two, a mean of 0.25
    assert guesses == pytest.approx({"dog": 0.2, "cat": 0.5}, abs=2e-3)
    assert not found["e.jpg"].labelled
    assert [(row.name, row.labels, row.found) for row in queue.recalls] == [
        ("cat", 2, 1),
        ("dog", 3, 3),
    ]
    order = [page.image.file_name for page in queue.pages]
    assert order[:2] == ["a.jpg", "e.jpg"]


def test_a_crowd_is_no_missing_label(store: BoxStore, data: Path, tmp_path: Path) -> None:
    path = data / "annotations/instances_train.json"
    document = json.loads(path.read_text())
    box = {"id": 99, "image_id": 0, "category_id": 1, "bbox": [45, 25, 50, 50], "iscrowd": 1}
    document["annotations"].append(box)
    path.write_text(json.dumps(document))
    queue = find_doubts(store, annotations_of(data, labelled=False), tmp_path)
    assert "a.jpg" not in {page.image.file_name for page in queue.pages}


def test_labels_of_other_images_are_refused(store: BoxStore, data: Path, tmp_path: Path) -> None:
    path = data / "annotations/instances_train.json"
    path.write_text(path.read_text().replace("a.jpg", "z.jpg"))
    with pytest.raises(DataError, match=r"z\.jpg"):
        find_doubts(store, annotations_of(data, labelled=False), tmp_path)


def test_the_page_shows_crops_and_escapes_names(
    store: BoxStore, data: Path, tmp_path: Path
) -> None:
    written = write_review(store.path, data, tmp_path / "out", least=0.1)
    page = (tmp_path / "out/review.html").read_text()
    assert page.count("data:image/jpeg") == 3 + 4
    assert "1. a.jpg" in page
    assert "not calibrated" in page
    queue = json.loads((tmp_path / "out/queue.json").read_text())
    assert queue["doubts"] == {"missing": 1, "class": 1, "unfound": 0, "guess": 2}
    assert queue["queue"][0]["expected_corrections"] == pytest.approx(0.8, abs=1e-3)
    assert set(queue["fingerprints"]) == {"one", "two"}
    assert written.tasks is None
    with pytest.raises(UsageError, match="no empty folder"):
        write_review(store.path, data, tmp_path / "out")


def edited(path: Path, change: Callable[[ET.Element], None]) -> None:
    tree = ET.parse(path)
    change(tree.getroot())
    tree.write(path)


def test_corrections_come_back_with_who_made_them(
    store: BoxStore, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write_review(store.path, data, out, form="cvat", least=0.1)
    untouched, changes = apply(open_data(data), open_data(out / "cvat"))
    # nobody confirmed a guess: all stays as it was
    assert (changes.images, changes.unfinished) == (0, 3)
    assert untouched.only.coco.n_boxes == 5

    def person(root: ET.Element) -> None:
        images = {image.get("name"): image for image in root.iter("image")}
        # the cat of a.jpg is one, the guess in c.jpg is not, and its label is moved
        for box in images["a.jpg"].iter("box"):
            if box.get("source") == "auto":
                box.set("source", "semi-auto")
        for box in images["c.jpg"].findall("box"):
            if box.get("source") == "auto":
                images["c.jpg"].remove(box)
            else:
                box.set("xtl", "14")
        # e.jpg was not labelled: the cat is right as it is, there is no dog, but a car
        dog, cat = sorted(images["e.jpg"].findall("box"), key=lambda box: box.get("label") == "cat")
        images["e.jpg"].remove(dog)
        cat.findall("attribute")[2].text = "true"
        for tag in images["e.jpg"].findall("tag"):
            images["e.jpg"].remove(tag)
        x1, y1, x2, y2 = map(str, CAR)
        new = {"label": "car", "source": "manual", "xtl": x1, "ytl": y1, "xbr": x2, "ybr": y2}
        ET.SubElement(images["e.jpg"], "box", new)

    edited(out / "cvat/annotations.xml", person)
    made, changes = apply(open_data(data), open_data(out / "cvat"), read_suggestions(out))
    assert (changes.images, changes.changed, changes.unfinished) == (3, 3, 0)
    counts = {name: {k: n for k, n in row.items() if n} for name, row in changes.counts.items()}
    assert counts == {
        "dog": {"kept": 1},
        "cat": {"added": 2, "moved": 1},
        "car": {"added": 1},
    }
    assert changes.confirmed == {"one": 2}
    assert changes.refused == 2
    write_coco(made, tmp_path / "new", origins=changes.origins)
    document = json.loads((tmp_path / "new/annotations/instances_train.json").read_text())
    assert [row["name"] for row in document["categories"]] == ["dog", "cat", "car"]
    origins = {
        (row["image_id"], row["category_id"]): row.get("origin") for row in document["annotations"]
    }
    assert origins[0, 2]["score"] == pytest.approx(0.8, abs=1e-3)
    assert origins[0, 2] | {"score": 0} == {"change": "added", "suggested_by": "one", "score": 0}
    assert origins[2, 2] == {"change": "moved"}
    assert origins[3, 1] is None
    assert not any("labelled" in image for image in document["images"])


def test_corrections_of_bare_photos_leave_the_rest_unlabelled(data: Path, tmp_path: Path) -> None:
    corrections = tmp_path / "fixed"
    corrections.mkdir()
    path = data / "annotations/instances_train.json"
    document = json.loads(path.read_text())
    document["images"] = document["images"][:2]
    document["annotations"] = [row for row in document["annotations"] if row["image_id"] < 2]
    (corrections / "labels.json").write_text(json.dumps(document))
    path.unlink()
    photos = open_data(data)
    assert photos.form == "photos"
    made, changes = apply(photos, open_data(corrections))
    assert changes.images == 2
    assert made.only.coco.table.unlabelled.tolist() == [False, False, True, True, True]
    assert made.only.coco.n_boxes == 3
    write_coco(made, tmp_path / "new")
    again = open_data(tmp_path / "new").only.coco
    assert again.table.unlabelled.tolist() == [False, False, True, True, True]


def test_corrections_of_other_images_are_refused(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    document = json.loads((data / "annotations/instances_train.json").read_text())
    document["images"][0]["width"] = 50
    document["images"] = document["images"][:1]
    document["annotations"] = []
    (other / "labels.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="50 x 80, in the data set 100 x 80"):
        apply(open_data(data), open_data(other))


def test_the_commands(
    store: BoxStore, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*words: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(
            ended.value.code or 0
        ), out if "--json" in words and not ended.value.code else out + err

    out = tmp_path / "review"
    code, text = call("review", store.path, "--data", data, "--out", out, "--as", "labelme")
    assert code == 0
    assert "about 2 corrections" in text
    assert "calibrate" in text
    shape = json.loads((out / "labelme/train/a.json").read_text())
    shape["flags"] = {}
    (out / "labelme/train/a.json").write_text(json.dumps(shape))
    words = ("data", data, "--corrections", out / "labelme", "--review", out)
    code, text = call(*words, "--out", tmp_path / "new")
    assert code == 0, text
    assert "confirmed: 1 of one; refused: 0" in text
    assert "2 images are not finished" in text
    code, text = call(*words, "--json")
    assert json.loads(text)["corrections"]["images"] == 1
    code, text = call("data", data, "--review", out)
    assert (code, "--corrections" in text) == (2, True)
    code, text = call("data", data, "--corrections", out / "labelme", "--review", data)
    assert (code, "queue" in text) == (1, True)
