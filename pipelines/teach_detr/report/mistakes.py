"""Sections on where teachers differ: from each other, and from the annotations."""

from student_train.evaluation.tables import percent
from teach_detr.report.findings import Findings
from teach_detr.report.layout import NO_TRUTH, by_teacher, note, section, swatch, table
from teach_detr.report.markup import Child, Markup, element
from teach_detr.report.samples import Pictures, crop_key

_ERROR_KINDS = ("hit", "duplicate", "class", "place", "background", "missed")
_HEAT_STEPS = 5


def agreement(found: Findings) -> Markup:
    """Which share of a teacher's boxes another one has too."""
    names = [row["name"] for row in found.teachers]
    if len(names) < 2:
        return section("agreement", "Agreement", note("The store has one teacher only."))
    shares = {(row["teacher"], row["other"]): row for row in found.agreement}

    def cell(name: str, other: str) -> Child:
        row = shares.get((name, other))
        if name == other or row is None:
            return "-"
        level = min(int(row["share"] * _HEAT_STEPS), _HEAT_STEPS - 1)
        counts = f"{row['agreed']} of {row['boxes']}"
        return element("span", percent(row["share"]), class_=f"heat h{level}", title=counts)

    rows = [(swatch(found, name), *(cell(name, other) for other in names)) for name in names]
    settings = found.settings
    return section(
        "agreement",
        "Agreement",
        table(
            "Boxes of the row's teacher that the column's has too, in percent", ("", *names), rows
        ),
        note(
            f"Same class, IoU {settings['iou']:g} or more, both scoring {settings['score']:g} or "
            "more, in images that both saw."
        ),
    )


def errors(found: Findings) -> Markup | None:
    """Each teacher's boxes by what is wrong with them."""
    if found.errors is None:
        return None
    counts = {(row["teacher"], row["kind"]): row["n"] for row in found.errors}
    rows = [
        (swatch(found, name), *(counts.get((name, kind), 0) for kind in _ERROR_KINDS))
        for name in by_teacher(found.errors)
    ]
    return section(
        "errors",
        "Mistakes",
        table("Boxes by outcome", ("teacher", *_ERROR_KINDS), rows),
        note(
            f"Boxes scoring {found.settings['score']:g} or more. duplicate: the object was found "
            "already; class: overlaps an object of another class; place: the right class, too far "
            "off; background: nothing is annotated there; missed: objects not found."
        ),
    )


def missing(found: Findings, pictures: Pictures | None) -> Markup:
    """Boxes that several teachers agree on and nobody annotated."""
    title = "Probably missing labels"
    if found.missing_labels is None:
        return section("missing", title, note(NO_TRUTH))
    if not found.missing_labels:
        return section("missing", title, note("No two teachers agree on an unannotated box."))
    crops = pictures.crops if pictures else {}
    cards = []
    for row in found.missing_labels:
        crop = crops.get(crop_key(row))
        what = f"{row['category']} in {row['file_name']}"
        corners = ", ".join(f"{row[name]:.0f}" for name in ("x1", "y1", "x2", "y2"))
        cards.append(
            element(
                "li",
                element("img", src=crop, alt=f"Crop around {what}", loading="lazy")
                if crop
                else None,
                element("strong", row["category"]),
                element("span", f"{row['score']:.2f} by {row['teacher']}, also {row['others']}"),
                element("span", row["file_name"], class_="file"),
                element("span", f"image {row['image_id']}, box {corners}", class_="note"),
            )
        )
    return section(
        "missing",
        title,
        note(
            f"The {len(cards)} surest boxes that two teachers or more agree on and no annotation "
            "of the class overlaps. All of them: teach-detr sql STORE --example missing_labels "
            "--annotations FILE --param top=100000 --format csv."
        ),
        element("ul", cards, class_="cards"),
    )


def worst(found: Findings) -> Markup:
    """Images with most mistakes, or, without ground truth, with most disagreement."""
    settings = found.settings
    if found.worst_images is not None:
        columns = ("file", "image", "objects", "teachers", "wrong boxes", "missed objects", "F1")
        rows = [
            (
                *(row[key] for key in ("file_name", "image_id", "objects", "teachers")),
                f"{row['wrong']:.2f}",
                f"{row['missed']:.2f}",
                "-" if row["f1"] is None else f"{row['f1']:.3f}",
            )
            for row in found.worst_images
        ]
        caption = "Images with most mistakes"
        remark = "Means over the teachers that saw the image"
    else:
        columns = ("file", "image", "boxes", "boxes alone", "share alone", "classes")
        rows = [
            (
                *(row[key] for key in ("file_name", "image_id", "boxes", "alone")),
                percent(row["share_alone"]),
                row["classes"],
            )
            for row in found.disagreements
        ]
        caption = "Images in which the teachers disagree most"
        remark = "A box is alone if no other teacher has one of its class and place"
    return section(
        "worst",
        "Worst images",
        table(caption, columns, rows) if rows else note("None."),
        note(f"{remark}; boxes scoring {settings['score']:g} or more."),
    )
