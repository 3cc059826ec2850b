"""Names and texts of strangers stay text on the report page."""

import dataclasses
import json
import re

import pytest
from PIL import Image

from box_store import (
    Boxes,
    BoxStore,
    DatasetInfo,
    ImageRow,
    TeacherRecord,
    image_ids_sha256,
    load_coco,
)
from teach_detr.report import ReportOptions, write_report
from teach_detr.report.findings import gather
from teach_detr.report.markup import Markup, element, json_text
from teach_detr.report.page import render
from tests.teach_detr.report.page import Page

HOSTILE = "</script><script>alert(1)</script><!--\u2028 \"'&<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Everything that a user can name is hostile: files, classes, licence, model, options."""
    root = tmp_path_factory.mktemp("hostile")
    file_name = HOSTILE.replace("/", "\\")[:120] + ".png"
    annotations = root / "instances.json"
    annotations.write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": file_name, "width": 64, "height": 48}],
                "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 9, 9]}],
                "categories": [{"id": 1, "name": HOSTILE}],
            }
        )
    )
    coco = load_coco(annotations)
    store = BoxStore.create(root / "s", coco.categories, DatasetInfo(HOSTILE, coco.sha256, 1))
    for name in ("a", "b"):
        store.register(
            TeacherRecord(
                name=name,
                adapter=HOSTILE,
                model=HOSTILE,
                weights_sha256="",
                licence=HOSTILE,
                class_map={HOSTILE: None},
                options={HOSTILE: HOSTILE},
                image_ids_sha256=image_ids_sha256([1]),
                unit_size=1,
                n_images=1,
                n_units=1,
                versions={HOSTILE: HOSTILE},
            )
        )
        boxes = Boxes([[20, 20, 40, 40]], [0.9], [1], 64, 48)  # type: ignore[arg-type]
        store.write_unit(name, 0, [ImageRow(1, file_name, 64, 48, boxes)])
    images = root / "images"
    images.mkdir()
    Image.new("RGB", (64, 48)).save(images / "plain.png")
    (images / "plain.png").rename(images / file_name)
    write_report(store.path, root / "r.html", annotations=annotations, images=images)
    return (root / "r.html").read_text(encoding="utf-8")


def test_hostile_names_stay_text(hostile_page: str) -> None:
    parsed = Page(hostile_page)
    # the data and the page's own script, and nothing that came with the data
    assert len(parsed.scripts) == 2
    assert not any("onerror" in attributes for _, attributes in parsed.elements)
    assert all(a.get("src") != "x" for _, a in parsed.elements)
    assert "<!--" not in hostile_page
    assert "onerror=alert(1)" in parsed.text
    data = parsed.scripts[0]
    assert not re.search(r"[<>&\u2028\u2029]", data)
    assert list(json.loads(data)["classes"].values()) == [HOSTILE]
    (alternative,) = {a["alt"] for t, a in parsed.elements if t == "img" and "Image 1" in str(a)}
    assert "onerror" in str(alternative)


def test_even_a_teacher_may_be_named_anything(small_store) -> None:
    # a store refuses such names; the page does not rely on it
    found = gather(small_store.path, small_store.annotations, ReportOptions(), lambda text: None)

    def renamed(rows: list[dict]) -> list[dict]:
        return [
            {key: HOSTILE if value == "half" else value for key, value in row.items()}
            for row in rows
        ]

    changed = {
        field.name: renamed(value)
        for field in dataclasses.fields(found)
        if isinstance(value := getattr(found, field.name), list) and field.name != "scores"
    }
    assert found.scores is not None
    changed["scores"] = [
        dataclasses.replace(score, teacher=HOSTILE) if score.teacher == "half" else score
        for score in found.scores
    ]
    parsed = Page(render(dataclasses.replace(found, **changed), None))
    assert len(parsed.scripts) == 1
    assert HOSTILE in parsed.rows("Provenance and licences")


@pytest.mark.parametrize("text", [HOSTILE, "</SCRIPT ", "<!--", "]]>", "\u2029", "&amp;"])
def test_json_in_a_script_can_neither_end_it_nor_change(text: str) -> None:
    written = json_text({text: [text]})
    assert json.loads(written) == {text: [text]}
    assert not re.search(r"[<>&\u2028\u2029]", written)


def test_elements_escape_all_but_markup() -> None:
    made = element("p", "<b>", Markup("<i></i>"), None, ["&", 3], title='"<', hidden=True, id=None)
    assert made == '<p title="&quot;&lt;" hidden>&lt;b&gt;<i></i>&amp;3</p>'
    assert element("input", for_="a", aria_label="b") == '<input for="a" aria-label="b">'
