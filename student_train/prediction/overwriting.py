"""What `predict` may replace: pictures that it drew before, and nothing else."""

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

from box_store.errors import UsageError
from box_store.places.locations import Location

ROWS = "predictions.json"
MARK = "drawn by student-train predict"
"""the comment in every JPEG that it writes"""


def check_targets(folder: Location, names: Mapping[Location, str]) -> None:
    """Refuse to write over anything but what an earlier call wrote. `names`: by input, in `folder`.

    Raises:
        UsageError: a picture would replace an input of the call, or a file of somebody else.
    """
    if not folder.is_dir():
        return
    rows = folder / ROWS
    drawn = _drawn_before(rows) if rows.exists() else set()
    if drawn is None:
        raise _refusal(rows, "is no list of predictions")
    inputs = {_identity(file) for file in names}
    for name in names.values():
        target = folder / name
        if not target.exists():
            continue
        if _identity(target) in inputs:
            raise _refusal(target, "is one of the images to look at")
        if name not in drawn and not _is_marked(target):
            raise _refusal(target, "was not drawn by an earlier predict")


def _refusal(target: Location, why: str) -> UsageError:
    return UsageError(f"{target} would be overwritten, and {why}: choose another --out")


def _drawn_before(rows: Location) -> set[str] | None:
    """Names of the pictures that an earlier call lists; None: the file is something else."""
    try:
        found = json.loads(rows.read_bytes())
    except ValueError:
        return None
    if not isinstance(found, list):
        return None
    if not all(isinstance(row, dict) and "file" in row for row in found):
        return None
    return set(_names(row.get("picture") for row in found))


def _names(pictures: Iterable[object]) -> Iterable[str]:
    return (each.rsplit("/", 1)[-1] for each in pictures if isinstance(each, str))


def _identity(file: Location) -> object:
    """The same for two names of one file."""
    if isinstance(file, Path):
        stat = file.stat()
        return stat.st_dev, stat.st_ino
    return str(file)


def _is_marked(target: Location) -> bool:
    if target.suffix.lower() not in (".jpg", ".jpeg"):
        return False
    try:
        with Image.open(io.BytesIO(target.read_bytes())) as image:
            return image.info.get("comment") == MARK.encode()
    except (OSError, ValueError, SyntaxError):
        return False
