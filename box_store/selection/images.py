"""Whether a selection and annotations speak of the same images."""

from box_store.coco.annotations import CocoData
from box_store.identity import contradictions, refuse
from box_store.selection.file import Selection


def check_selection(selection: Selection, coco: CocoData) -> None:
    """Raise DataError where a selection and annotations mean other images by the same ids.

    Selections of versions that kept no names are compared by size.
    """
    seen = {image for name in selection.teachers for image in selection.images(name)}
    where = f"the selection {selection.path}"
    refuse(contradictions(sorted(seen), coco.by_id), where, coco.path)
