"""One data set, written by hand in every layout that is read."""

import gzip
import json
from collections.abc import Callable

from tests.box_store.forms.conftest import (
    BOXES,
    CLASSES,
    SIZE,
    TRAIN,
    VAL,
    Builder,
)

PARTS = (("train", TRAIN), ("val", VAL))


def coco_layout(b: Builder) -> None:
    for split, names in PARTS:
        b.json(f"annotations/instances_{split}.json", b.coco(names))
        b.json(f"annotations/captions_{split}.json", {"images": [], "annotations": []})
        for name in names:
            b.image(f"{split}/{name}")


def roboflow(b: Builder) -> None:
    for split, names in (("train", TRAIN), ("valid", VAL)):
        b.json(f"{split}/_annotations.coco.json", b.coco(names))
        for name in names:
            b.image(f"{split}/{name}")


def cvat(b: Builder) -> None:
    for split, names in (("Train", TRAIN), ("Validation", VAL)):
        b.json(f"annotations/instances_{split}.json", b.coco(names))
        for name in names:
            b.image(f"images/{name}")


def custom(b: Builder) -> None:
    for split, names in PARTS:
        b.json(f"labels/custom_{split}.json", b.coco(names, prefix="photos/"))
        for name in names:
            b.image(f"photos/{name}")


def packed(b: Builder) -> None:
    coco_layout(b)
    for split, _ in PARTS:
        path = b.root / f"annotations/instances_{split}.json"
        path.with_name(f"instances_{split}.json.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


def lvis(b: Builder) -> None:
    for split, names in PARTS:
        document = b.coco(names)
        for image in document["images"]:
            name = image.pop("file_name")
            image["coco_url"] = f"http://images.cocodataset.org/{split}2017/{name}"
        b.json(f"lvis_v1_{split}.json", document)
        for name in names:
            b.image(f"{split}2017/{name}")


def objects365(b: Builder) -> None:
    for split, names in PARTS:
        b.json(f"zhiyuan_objv2_{split}.json", b.coco(names, prefix="images/v1/patch8/"))
        for name in names:
            b.image(f"{split}/patch8/{name}")


def another_machine(b: Builder) -> None:
    for split, names in PARTS:
        b.json(f"annotations/instances_{split}.json", b.coco(names, prefix="/home/bob/set/img/"))
        for name in names:
            b.image(f"img/{name}")


def windows(b: Builder) -> None:
    for split, names in PARTS:
        b.json(f"{split}.json", b.coco(names, prefix=f"photos\\{split}\\"))
        for name in names:
            b.image(f"photos/{split}/{name}")


def yolo(b: Builder, yaml: str = "path: .", kind: str = "box", names: str | None = None) -> None:
    for split, listed in PARTS:
        for name in listed:
            b.image(f"images/{split}/{name}")
            b.text(f"labels/{split}/{name[:-4]}.txt", b.yolo_rows(name, kind))
    names = names or f"names: {json.dumps(CLASSES)}"
    b.text("data.yaml", f"{yaml}\ntrain: images/train\nval: images/val\n{names}\n")


def yolo_missing_path(b: Builder) -> None:
    yolo(b, "", names="names:\n  0: car\n  1: dog\n  2: person")


def yolo_absolute(b: Builder) -> None:
    yolo(b, f"path: {b.root}")


def yolo_elsewhere(b: Builder) -> None:
    yolo(b, "path: /home/bob/datasets/data")


def yolo_outlines(b: Builder) -> None:
    yolo(b, kind="outline")


def yolo_lists(b: Builder) -> None:
    yolo(b)
    for split, names in PARTS:
        lines = [f"/content/data/images/{split}/{name}" for name in names]
        b.text(f"{split}.txt", "\n".join(lines) + "\n")
    b.text("data.yaml", f"train: train.txt\nval: [val.txt]\nnames: {json.dumps(CLASSES)}")


def yolo_roboflow(b: Builder) -> None:
    for split, names in (("train", TRAIN), ("valid", VAL)):
        for name in names:
            b.image(f"{split}/images/{name}")
            b.text(f"{split}/labels/{name[:-4]}.txt", b.yolo_rows(name))
    listed = f"train: ../train/images\nval: ../valid/images\nnc: 3\nnames: {json.dumps(CLASSES)}"
    b.text("data.yaml", listed)


def darknet(b: Builder) -> None:
    for split, names in PARTS:
        for name in names:
            b.image(f"obj_{split}_data/{name}")
            b.text(f"obj_{split}_data/{name[:-4]}.txt", b.yolo_rows(name))
        b.text(f"{split}.txt", "\n".join(f"data/obj_{split}_data/{name}" for name in names))
    b.text("obj.names", "\n".join(CLASSES) + "\n")
    b.text(
        "obj.data",
        "classes = 3\ntrain = data/train.txt\nvalid = data/val.txt\nnames = data/obj.names",
    )


def yolo_twins(b: Builder) -> None:
    yolo(b)
    (b.root / "data.yaml").unlink()
    b.text("classes.txt", "\n".join(CLASSES))


def yolo_other_images(b: Builder) -> None:
    yolo_twins(b)
    (b.root / "images").rename(b.root / "JPEGImages")


def voc(b: Builder, folder: str = "VOC2007/") -> None:
    for split, names in PARTS:
        stems = [name[:-4] for name in names]
        b.text(f"{folder}ImageSets/Main/{split}.txt", "\n".join(stems) + "\n")
        for name in names:
            b.image(f"{folder}JPEGImages/{name}")
            b.text(f"{folder}Annotations/{name[:-4]}.xml", b.voc_xml(name))
    b.text(f"{folder}ImageSets/Main/dog_train.txt", "a  1\nc -1\n")


def voc_stale_names(b: Builder) -> None:
    voc(b)
    for name in BOXES:
        b.text(f"VOC2007/Annotations/{name[:-4]}.xml", b.voc_xml(name, filename="image001.png"))


def voc_renamed(b: Builder) -> None:
    """Annotation files have other names than images, which `filename` gives without suffix."""
    for split, names in PARTS:
        for name in names:
            b.image(f"{split}/{name}")
            b.text(f"{split}/label_{name[:-4]}.xml", b.voc_xml(name, filename=name[:-4]))


def csv_splits(b: Builder) -> None:
    header = ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]
    for split, names in PARTS:
        rows = [[n, *SIZE, c, *box] for n in names for c, *box in BOXES[n]]
        b.table(f"data/{split}_labels.csv", header, rows)
        for name in names:
            b.image(f"images/{name}")


def csv_folders(b: Builder) -> None:
    """As Roboflow exports for TensorFlow: files of one name, one in each split's folder."""
    header = ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]
    for split, names in (("train", TRAIN), ("valid", VAL)):
        rows = [[n, *SIZE, c, *box] for n in names for c, *box in BOXES[n]]
        b.table(f"{split}/_annotations.csv", header, rows)
        for name in names:
            b.image(f"{split}/{name}")


def csv_bare(b: Builder) -> None:
    """As keras-retinanet reads it, with a file of classes beside it."""
    for split, names in PARTS:
        rows = [[f"images/{n}", *box, c] for n in names for c, *box in BOXES[n]]
        b.table(f"{split}.csv", None, rows)
        for name in names:
            b.image(f"images/{name}")
    b.table("classes.csv", None, [[name, at] for at, name in enumerate(CLASSES)])


def csv_lists(b: Builder) -> None:
    """Four numbers in one column."""
    for split, names in PARTS:
        rows = [
            [n[:-4], f"[{x1}.0, {y1}.0, {x2 - x1}.0, {y2 - y1}.0]", c]
            for n in names
            for c, x1, y1, x2, y2 in BOXES[n]
        ]
        b.table(f"{split}.csv", ["image_id", "bbox", "label"], rows)
        for name in names:
            b.image(f"images/{name}")


def image_folder(b: Builder) -> None:
    for split, names in (("train", TRAIN), ("validation", VAL)):
        rows = [
            {
                "file_name": name,
                "objects": {
                    "bbox": [[x1, y1, x2 - x1, y2 - y1] for _, x1, y1, x2, y2 in BOXES[name]],
                    "categories": [c for c, *_ in BOXES[name]],
                },
            }
            for name in names
        ]
        b.text(f"{split}/metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        for name in names:
            b.image(f"{split}/{name}")


def open_images(b: Builder) -> None:
    header = ["ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax"]
    header += ["IsOccluded", "IsTruncated", "IsGroupOf"]
    codes = {name: f"/m/0{at}" for at, name in enumerate(CLASSES)}
    b.table("class-descriptions-boxable.csv", None, [[v, k] for k, v in codes.items()])
    for split, names in PARTS:
        rows = [
            [
                n[:-4],
                "x",
                codes[c],
                1,
                x1 / SIZE[0],
                x2 / SIZE[0],
                y1 / SIZE[1],
                y2 / SIZE[1],
                0,
                0,
                0,
            ]
            for n in names
            for c, x1, y1, x2, y2 in BOXES[n]
        ]
        b.table(f"{split}-annotations-bbox.csv", header, rows)
        for name in names:
            b.image(f"{split}/{name}")


def labelme(b: Builder) -> None:
    for split, names in PARTS:
        for name in names:
            b.image(f"{split}/{name}")
            shapes = [
                {"label": c, "points": [[x2, y1], [x1, y2]], "shape_type": "rectangle"}
                if at % 2
                else {"label": c, "points": [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]}
                for at, (c, x1, y1, x2, y2) in enumerate(BOXES[name])
            ]
            document = {"version": "5.8", "shapes": shapes, "imagePath": f"..\\img\\{name}"}
            sizes = {"imageData": "x" * 99, "imageHeight": SIZE[1], "imageWidth": SIZE[0]}
            b.json(f"{split}/{name[:-4]}.json", document | sizes)


def crowdhuman(b: Builder) -> None:
    for split, names in PARTS:
        lines = [
            json.dumps(
                {
                    "ID": name[:-4],
                    "gtboxes": [
                        {"tag": c, "fbox": [x1, y1, x2 - x1, y2 - y1], "vbox": [0, 0, 1, 1]}
                        for c, x1, y1, x2, y2 in BOXES[name]
                    ],
                }
            )
            for name in names
        ]
        b.text(f"annotation_{split}.odgt", "\n".join(lines))
        for name in names:
            b.image(f"Images/{name}")


def parquet(b: Builder) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {
        "image": {"_type": "Image"},
        "objects": {
            "bbox": {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "List"},
            "category": {
                "feature": {"names": list(CLASSES), "_type": "ClassLabel"},
                "_type": "List",
            },
        },
    }
    about = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    for split, names in PARTS:
        rows = [
            {
                "image": {"bytes": b.image(f"hidden/{name}").read_bytes(), "path": name},
                "objects": {
                    "bbox": [[x1, y1, x2 - x1, y2 - y1] for _, x1, y1, x2, y2 in BOXES[name]],
                    "category": [CLASSES.index(c) for c, *_ in BOXES[name]],
                },
            }
            for name in names
        ]
        for name in names:
            (b.root / "hidden" / name).unlink()
        table = pa.Table.from_pylist(rows)
        (b.root / "data").mkdir(exist_ok=True)
        pq.write_table(
            table.replace_schema_metadata(about), b.root / f"data/{split}-00000-of-00001.parquet"
        )


def cvat_xml(b: Builder) -> None:
    images = []
    for split, names in PARTS:
        for name in names:
            b.image(f"images/{name}")
            boxes = "".join(
                f'<box label="{c}" source="manual" occluded="0" xtl="{x1}.00" ytl="{y1}.00" '
                f'xbr="{x2}.00" ybr="{y2}.00" z_order="0"></box>'
                for c, x1, y1, x2, y2 in BOXES[name]
            )
            images.append(
                f'<image id="{len(images)}" name="{name}" subset="{split}" width="{SIZE[0]}" '
                f'height="{SIZE[1]}">{boxes}</image>'
            )
    labels = "".join(f"<label><name>{name}</name></label>" for name in CLASSES)
    b.text(
        "annotations.xml",
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta><task>'
        f"<labels>{labels}</labels></task></meta>{''.join(images)}</annotations>",
    )


def label_studio(b: Builder) -> None:
    tasks = []
    for split, names in PARTS:
        for name in names:
            b.image(f"{split}/{name}")
            results = [
                {
                    "type": "rectanglelabels",
                    "original_width": SIZE[0],
                    "original_height": SIZE[1],
                    "value": {
                        "x": 100 * x1 / SIZE[0],
                        "y": 100 * y1 / SIZE[1],
                        "width": 100 * (x2 - x1) / SIZE[0],
                        "height": 100 * (y2 - y1) / SIZE[1],
                        "rotation": 0,
                        "rectanglelabels": [c],
                    },
                }
                for c, x1, y1, x2, y2 in BOXES[name]
            ]
            data = {"image": f"/data/upload/1/0a1b2c3d-{name}"}
            done = {"was_cancelled": False, "result": results}
            tasks.append({"id": len(tasks), "annotations": [done], "data": data})
    b.json("project-1.json", tasks)


WRITERS: dict[str, tuple[str, Callable[[Builder], None], dict[str, str]]] = {
    "COCO's layout": ("coco", coco_layout, {}),
    "Roboflow": ("coco", roboflow, {"valid": "val"}),
    "CVAT": ("coco", cvat, {"Train": "train", "Validation": "val"}),
    "custom names": ("coco", custom, {}),
    "packed": ("coco", packed, {}),
    "LVIS": ("coco", lvis, {}),
    "Objects365": ("coco", objects365, {}),
    "paths of another machine": ("coco", another_machine, {}),
    "backslashes": ("coco", windows, {}),
    "YOLO": ("yolo", yolo, {}),
    "YOLO without path": ("yolo", yolo_missing_path, {}),
    "YOLO with an absolute path": ("yolo", yolo_absolute, {}),
    "YOLO with another machine's path": ("yolo", yolo_elsewhere, {}),
    "YOLO outlines": ("yolo", yolo_outlines, {}),
    "YOLO lists": ("yolo", yolo_lists, {}),
    "YOLO of Roboflow": ("yolo", yolo_roboflow, {}),
    "darknet": ("yolo", darknet, {"valid": "val"}),
    "YOLO without data.yaml": ("yolo", yolo_twins, {}),
    "YOLO beside JPEGImages": ("yolo", yolo_other_images, {}),
    "VOC": ("voc", voc, {}),
    "VOC with stale names": ("voc", voc_stale_names, {}),
    "VOC with other file names": ("voc", voc_renamed, {}),
    "CSV": ("csv", csv_splits, {}),
    "CSV of Roboflow": ("csv", csv_folders, {"valid": "val"}),
    "CSV without names": ("csv", csv_bare, {}),
    "CSV with lists": ("csv", csv_lists, {}),
    "Open Images": ("openimages", open_images, {}),
    "labelme": ("labelme", labelme, {}),
    "CVAT's XML": ("cvat", cvat_xml, {}),
    "Label Studio's JSON": ("label-studio", label_studio, {}),
    "CrowdHuman": ("crowdhuman", crowdhuman, {}),
    "parquet": ("parquet", parquet, {}),
    "image folder": ("imagefolder", image_folder, {"validation": "val"}),
}
