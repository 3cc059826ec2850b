"""The same boxes in the store's files, as COCO JSON, and as pyarrow writes Parquet unasked."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from box_store.measure.figures import Figure, spend
from box_store.store import schema

_GROUP = "the same boxes in other formats"


@dataclass
class _Format:
    """A way to keep a table of boxes, and what it cost so far.

    rounded: it is given what the store keeps, not the teacher's own values.
    """

    name: str
    suffix: str
    write: Callable[[pa.Table, Path], Any]
    read: Callable[[Path], Any]
    rounded: bool = True
    n_bytes: int = 0
    write_s: float = 0.0
    read_s: float = 0.0


def compare_formats(units: Iterable[tuple[pa.Table, pa.Table]], folder: Path) -> list[Figure]:
    """Bytes a box and rates of each format, unit by unit in turn: a busy machine slows all.

    units: the boxes of each unit as its teacher gave them, and as the store keeps them (rounded),
    both with the columns of `schema.BOXES`.
    """
    options = schema.PARQUET_OPTIONS["boxes"]
    formats = [
        _Format("store", "parquet", lambda t, path: pq.write_table(t, path, **options), _read),
        _Format("COCO JSON", "json", _write_json, _read_json),
        _Format("pyarrow's defaults", "plain.parquet", pq.write_table, _read, rounded=False),
        _Format("the same, rounded", "rounded.parquet", pq.write_table, _read),
    ]
    n_boxes = 0
    for given, rounded in units:
        n_boxes += rounded.num_rows
        for each in formats:
            path = folder / f"compared.{each.suffix}"
            table = rounded if each.rounded else given
            each.write_s += spend(lambda e=each, t=table, p=path: e.write(t, p))[0].cpu_s
            each.read_s += spend(lambda e=each, p=path: e.read(p))[0].cpu_s
            each.n_bytes += path.stat().st_size
            path.unlink()
    return list(_figures(formats, n_boxes))


def _figures(formats: Sequence[_Format], n_boxes: int) -> Iterator[Figure]:
    ours, *peers = formats
    for peer in peers:
        ratio = peer.n_bytes / ours.n_bytes
        sizes = [each.n_bytes / n_boxes for each in (ours, peer)]
        yield Figure(_GROUP, "size", sizes[0], "B a box", peer.name, sizes[1], ratio)
        for name, mine, theirs in (
            ("write", ours.write_s, peer.write_s),
            ("read", ours.read_s, peer.read_s),
        ):
            rates = [n_boxes / seconds / 1e6 for seconds in (mine, theirs)]
            yield Figure(_GROUP, name, rates[0], "M/CPU s", peer.name, rates[1], theirs / mine)


def _read(path: Path) -> pa.Table:
    return pq.ParquetFile(path).read()


def _write_json(table: pa.Table, path: Path) -> None:
    """As compact as JSON gets: no blanks, hundredths of pixels, ten-thousandths of scores."""
    names = ("image_id", "category_id", "score", "x1", "y1", "x2", "y2")
    columns = [table[name].to_pylist() for name in names]
    entries = [
        {
            "image_id": image_id,
            "category_id": category_id,
            "bbox": [round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2)],
            "score": round(score, 4),
        }
        for image_id, category_id, score, x1, y1, x2, y2 in zip(*columns, strict=True)
    ]
    path.write_text(json.dumps(entries, separators=(",", ":")))


def _read_json(path: Path) -> Any:
    return json.loads(path.read_bytes())
