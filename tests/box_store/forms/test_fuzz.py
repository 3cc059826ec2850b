"""Whatever happens to the label files of a form, it is read, or refused in a sentence."""

import random
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from box_store.errors import TeachDetrError
from box_store.forms.opening import open_data
from tests.box_store.forms.conftest import Builder
from tests.box_store.forms.layouts import WRITERS
from tests.tally import Tally

pytestmark = pytest.mark.faults
EDITS = 25
_TEXT = b"\x00<>{}[],:\"'-9e.\xff\xd8 \n/\\"


def damaged(raw: bytes, draw: random.Random) -> bytes:
    """The same with a few bytes changed, cut, doubled, or other text in between."""
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(raw) + 1)
        kind = draw.randrange(4)
        if kind == 0:
            raw = raw[:at] + bytes([draw.choice(_TEXT)]) + raw[at + 1 :]
        elif kind == 1:
            raw = raw[:at] + raw[at + draw.randint(1, 30) :]
        elif kind == 2:
            raw = raw[:at] + bytes(draw.choices(_TEXT, k=draw.randint(1, 6))) + raw[at:]
        else:
            raw = raw[:at] if draw.random() < 0.3 else raw + raw[at:]
    return raw


@pytest.mark.parametrize("name", WRITERS)
def test_label_files_of_every_form(build: Builder, name: str, tally: Tally) -> None:
    WRITERS[name][1](build)
    draw = random.Random(name)
    files = sorted(p for p in build.root.rglob("*") if p.is_file() and p.suffix != ".jpg")
    sound = {path: path.read_bytes() for path in files}
    for _ in range(EDITS):
        chosen: list[Path] = draw.sample(files, min(len(files), draw.randint(1, 2)))
        for path in chosen:
            path.write_bytes(damaged(sound[path], draw))
        # anything but a sentence fails the test
        outcome = "refused in a sentence"
        with suppress(TeachDetrError):
            for split in open_data(build.root).splits:
                table = split.coco.table
                ends = table.boxes_xywh[:, :2].astype(float) + table.boxes_xywh[:, 2:]
                sides = np.stack([table.widths, table.heights], 1)
                assert (ends <= sides.repeat(np.diff(table.offsets), 0)).all()
            outcome = "read"
        tally.add(f"damage to the label files of {len(WRITERS)} layouts", outcome)
        for path in chosen:
            path.write_bytes(sound[path])
    assert open_data(build.root).form == WRITERS[name][0]
