"""A data set of any form written in another: for label tools, and for trainers of other kinds."""

from pathlib import Path

from box_store.errors import StoreError, UsageError
from box_store.forms.opening import DataSet
from box_store.outgoing.coco import check_target, divided
from box_store.outgoing.placing import empty_folder
from box_store.outgoing.sheet import Account, Part, sheets_of
from box_store.outgoing.table import WRITERS, FolderForm


def write_folder(
    data: DataSet, form: FolderForm, out: Path, *, val: float | None = None, seed: int = 0
) -> Account:
    """Write all splits; val, seed: as `write_coco` has them.

    Raises UsageError: `out` is not empty or lies in the data set, or the splits have different
    classes. DataError, StoreError.
    """
    out = Path(out).absolute()
    check_target(data, out)
    tables = {split.coco.categories.names for split in data.splits}
    if len(tables) > 1:
        raise UsageError(
            f"the splits of {data.place} have different classes, and {form} has one list of them: "
            "write the splits one by one, with ,split=NAME behind the path"
        )
    parts = [
        Part(name, split.images, sheets_of(split.coco, rows.tolist()))
        for split, name, rows in divided(data, val, seed)
    ]
    classes = next(iter(tables))
    try:
        empty_folder(out)
        return WRITERS[form](parts, classes, out, f"{data.place} ({data.title})")
    except OSError as error:
        raise StoreError(f"cannot write {out}: {error.strerror or error}") from error
