"""All forms, in the order in which they are tried. A new one is a module and a line here."""

from box_store.forms import (
    coco,
    crowdhuman,
    csv_rows,
    cvat,
    imagefolder,
    label_studio,
    labelme,
    open_images,
    parquet,
    photos,
    voc,
    yolo,
)
from box_store.forms.protocol import Form

FORMS: tuple[Form, ...] = (
    coco.FORM,
    yolo.FORM,
    voc.FORM,
    cvat.FORM,
    label_studio.FORM,
    labelme.FORM,
    open_images.FORM,
    csv_rows.FORM,
    crowdhuman.FORM,
    parquet.FORM,
    imagefolder.FORM,
    photos.FORM,
)
