"""YOLO: `images/SPLIT`, `labels/SPLIT` and `data.yaml`, as Ultralytics documents it.

A line is the class (its place in the list), then centre x and y, width and height as shares of the
image; a guess may be followed by its score, as tools that read predictions expect and tools that
train do not.
"""

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from box_store.forms.at_once import role
from box_store.outgoing.placing import Names, placed
from box_store.outgoing.sheet import Account, Mark, Part, Sheet, subset


def write(
    parts: Sequence[Part],
    classes: Sequence[str],
    out: Path,
    about: str,
    *,
    with_scores: bool = False,
) -> Account:
    """Write into the empty folder `out`; about: a line for whoever opens `data.yaml`.

    Splits are folders, unless there is one of no purpose. An image without boxes has an empty file;
    one that nobody labelled has none. Raises DataError for names that cannot be written.
    """
    account, names = Account(), Names(flat=False)
    place = {name: at for at, name in enumerate(classes)}
    for part in parts:
        below = subset(part, parts)
        for sheet, _ in placed(part, names, account, out / "images" / below):
            if sheet.unlabelled:
                account.lose("labels of images that are not labelled wholly", len(sheet.marks))
                continue
            kept = [mark for mark in sheet.marks if not mark.crowd]
            account.lose("crowds", len(sheet.marks) - len(kept))
            account.marks += len(kept)
            path = out / "labels" / below / PurePosixPath(sheet.file_name).with_suffix(".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = (_line(mark, sheet, place, with_scores) for mark in kept)
            path.write_text("".join(lines), encoding="utf-8")
    (out / "data.yaml").write_text(_yaml(parts, classes, about), encoding="utf-8")
    return account


def _line(mark: Mark, sheet: Sheet, place: dict[str, int], with_scores: bool) -> str:
    x1, y1, x2, y2 = mark.corners
    shares = (
        *((x1 + x2) / 2 / sheet.width, (y1 + y2) / 2 / sheet.height),
        *((x2 - x1) / sheet.width, (y2 - y1) / sheet.height),
    )
    score = f" {mark.score:g}" if with_scores and mark.score is not None else ""
    return " ".join([str(place[mark.category]), *(repr(value) for value in shares)]) + score + "\n"


def _yaml(parts: Sequence[Part], classes: Sequence[str], about: str) -> str:
    folders = {part.name: f"images/{subset(part, parts)}".rstrip("/") for part in parts}
    first = next(iter(folders.values()))
    by_role = {role(name) or name: folder for name, folder in folders.items()}
    # trainers ask for both; where there is one split alone, one is cut off elsewhere
    lines = [f"train: {by_role.get('train', first)}", f"val: {by_role.get('val', first)}"]
    lines += [f"{_text(name)}: {path}" for name, path in folders.items() if role(name) == "test"]
    names = [f"  {at}: {_text(text)}" for at, text in enumerate(classes)]
    return "\n".join([f"# {' '.join(about.split())}", *lines, "names:", *names]) + "\n"


def _text(text: str) -> str:
    # JSON's text is YAML's, but for characters beyond 16 bits, which YAML escapes otherwise
    return json.dumps(text, ensure_ascii=max(map(ord, text), default=0) < 2**16)
