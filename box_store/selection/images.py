"""Whether a selection and annotations speak of the same images."""

from box_store.coco.annotations import CocoData
from box_store.errors import DataError
from box_store.identity import contradictions, refuse
from box_store.selection.file import Selection
from box_store.store.splits import are_one


def check_selection(selection: Selection, coco: CocoData) -> None:
    """Raise DataError where a selection and annotations mean other images by the same ids.

    Selections of versions that kept no names are compared by size. One out of a store whose splits
    number their images alike has to be of the split of the annotations.
    """
    seen = {image for name in selection.teachers for image in selection.images(name)}
    where = f"the selection {selection.path}"
    refuse(contradictions(sorted(seen), coco.by_id), where, coco.path)
    held = [name for name in selection.metadata.get("splits", ()) if name]
    if held and coco.split and not any(are_one(name, coco.split) for name in held):
        raise DataError(
            f"{where} is of the split {' and '.join(held)}, {coco.path} of {coco.split}, and in "
            "the store they number other images alike: select again with --split, or with the "
            "annotations"
        )
