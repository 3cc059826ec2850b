"""One HTML page about a store's teachers: how good, how sure, how different, what nobody labelled.

The page holds everything it shows and loads nothing. Its numbers are those of the documented SQL
queries and of `teach-detr teachers`; every text from the data is escaped.
"""

from dataclasses import dataclass
from pathlib import Path

from box_store.errors import DataError, StoreError
from box_store.places import files
from teach_detr.report.findings import Findings, ReportOptions, Say, gather
from teach_detr.report.page import render
from teach_detr.report.samples import Pictures, take_samples

__all__ = ["Findings", "Pictures", "ReportOptions", "Written", "write_report"]


@dataclass(frozen=True)
class Written:
    """What a report holds: its file, the findings, and the pictures where there was a folder."""

    path: Path
    n_bytes: int
    findings: Findings
    pictures: Pictures | None


def write_report(
    store: Path,
    out: Path,
    *,
    annotations: Path | None = None,
    split: str | None = None,
    images: Path | None = None,
    options: ReportOptions | None = None,
    say: Say = lambda text: None,
) -> Written:
    """Write the page of a store.

    Without annotations it has no AP, no calibration and no missing labels; without the folder of
    images no pictures. `split`: of the store, alone. `say` hears what is being done. The file
    appears as a whole or not at all.

    Raises: StoreError, FormatError: no store, or a damaged one. DataError: annotations that cannot
    be read, or no folder of images. UsageError: DuckDB is missing.
    """
    options = options or ReportOptions()
    if images is not None and not images.is_dir():
        raise DataError(f"no folder of images at {images}")
    found = gather(store, annotations, options, say, split)
    pictures = None
    if images is not None:
        pictures = take_samples(store, annotations, images, found, options, say, split)
    say("writing the page")
    page = render(found, pictures).encode()
    target = Path(out).absolute()
    try:
        files.make_folder(target.parent)
        with files.replacing(target) as file:
            file.write(page)
    except OSError as error:
        raise StoreError(f"cannot write {out}: {error.strerror or error}") from error
    return Written(target, len(page), found, pictures)
