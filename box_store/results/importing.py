"""COCO results JSON (any detector, any lab) into a store, exactly once, without holding the file.

Results come in any order while a unit needs all boxes of its images, so they are first sorted into
one temporary file a unit, 32 bytes a box.
"""

import hashlib
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from box_store.boxes import Boxes
from box_store.categories import Categories
from box_store.coco.annotations import ImageInfo
from box_store.errors import DataError, StoreError, UsageError
from box_store.places.image_files import same_name
from box_store.places.lease import hold
from box_store.results.exporting import iter_results, shortened
from box_store.store.reader import known_images
from box_store.store.records import ImageRow, TeacherRecord, image_ids_sha256, split_units
from box_store.store.schema import COORDINATE_STEPS, SCORE_STEPS
from box_store.store.store import BoxStore
from box_store.wording import counted

_ROW = np.dtype([("image", "<i8"), ("category", "<i4"), ("score", "<f4"), ("box", "<f4", (4,))])
# boxes held in memory before they go to the temporary files
_HELD = 100_000
# as a teacher's name
_NUMBER_LIKE = re.compile(r"[0-9]+([eE.][0-9]+)?|[0-9]{4}-[0-9]{2}(-[0-9]{2})?")
_NAMED = 5
# the share of boxes that are there twice which is no accident
_REPEATED = 0.01


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did. `dropped` counts detections without area or outside their image; of the
    boxes that were kept, `n_cut` reached out of their image and were cut to it, and `n_faint` have
    scores that the store's steps round to 0. `n_tiny` are no larger than a pixel, `n_repeated` are
    in the files before, with the same class, score and corners.
    """

    record: TeacherRecord
    n_boxes: int
    units_written: int
    units_present: int
    dropped: Mapping[str, int]
    n_cut: int = 0
    n_faint: int = 0
    n_tiny: int = 0
    n_repeated: int = 0

    def remarks(self) -> list[str]:
        """What is otherwise than in the file, a sentence each."""
        if not self.units_written:
            return []
        found = [
            f"stored boxes are rounded to 1/{COORDINATE_STEPS} px and scores to "
            f"1/{SCORE_STEPS}: AP of theirs may differ a little from the file's own"
        ]
        if self.n_cut:
            found.append(f"{counted(self.n_cut, 'box', 'boxes')} reached out of the image: cut")
        if self.n_faint:
            scores = counted(self.n_faint, "score")
            found.append(f"{scores} below 1/{2 * SCORE_STEPS}: kept as 0")
        if _REPEATED * self.n_boxes < self.n_repeated:
            found.append(
                f"{self.n_repeated} of {self.n_boxes} boxes are there before, alike in class, "
                "score and corners, and count as mistakes: were the files of several processes "
                "joined that share images?"
            )
        if self.n_boxes and self.n_tiny == self.n_boxes:
            found.append(
                "every box is smaller than a pixel: results are in pixels of the image, and these "
                "look like parts of 1"
            )
        elif 2 * self.n_cut > self.n_boxes:
            found.append(
                "most boxes reach out of their image: bbox is x, y, width, height; these look like "
                "corners"
            )
        if _NUMBER_LIKE.fullmatch(self.record.name):
            found.append(
                f"programs that read folders as columns (pyarrow, Polars) may take the name "
                f"{self.record.name} for a number or a date: one with a letter is safer"
            )
        return found


def import_results(
    store: BoxStore,
    name: str,
    results: Sequence[Path],
    images: Sequence[ImageInfo] | None = None,
    *,
    model: str = "imported results",
    licence: str = "unknown",
    unit_size: int = 1000,
    score_floor: float = 0.0,
    only_listed: bool = False,
    takeover: bool = False,
) -> ImportReport:
    """Enter COCO results as the boxes of teacher `name`, exactly once, resumable like any teacher.

    results: files whose detections belong together. images: the data set's images, by default those
    that the store's other teachers were shown. An image without detections counts as seen and
    empty, unless `only_listed`, which covers only images that the results mention. Detections below
    `score_floor` are left out. A store at a URL is held while units are written; `takeover` takes
    it from another driver.

    Raises DataError (malformed results, wrong ids, named, or images of several splits whose ids
    collide), UsageError, StoreError.
    """
    images = tuple(images) if images is not None else known_images(store)
    if not images:
        raise UsageError(
            f"the box store {store.path} knows no images yet: import needs the data set's "
            "annotation file for their sizes"
        )
    digest = _sha256(results)
    known = {image.id: image for image in images}
    if only_listed:
        listed = {entry["image_id"] for path in results for entry in iter_results(path)}
        images = tuple(image for image in images if image.id in listed)
    record = TeacherRecord(
        name=name,
        adapter="import",
        model=model,
        weights_sha256=digest,
        licence=licence,
        class_map={item.name: item.id for item in store.categories.items},
        options={"score_floor": score_floor, "only_listed": only_listed},
        image_ids_sha256=image_ids_sha256(image.id for image in images),
        unit_size=unit_size,
        n_images=len(images),
        n_units=-(-len(images) // unit_size),
    )
    units = split_units(images, unit_size)
    stored = store.teachers.get(name)
    if stored is not None:
        store.register(record)  # refuses another configuration before hours of reading
        done = store.units_done(name)
        if len(done) == len(units):
            return ImportReport(stored, 0, 0, len(done), {})
    try:
        with tempfile.TemporaryDirectory(prefix=".import-", dir=_room(store)) as folder:
            unit_of = {image.id: unit for unit, part in enumerate(units) for image in part}
            buckets = _Buckets(Path(folder), unit_of)
            counts = _sort_into(buckets, results, known, store.categories, score_floor)
            # only now, with all ids found right, does the store learn of the teacher
            with hold(store.path, takeover=takeover) as lease:
                record = store.register(record)
                done = store.units_done(name)
                for unit, part in enumerate(units):
                    if unit not in done:
                        lease.check()
                        rows = buckets.read(unit)
                        counts.repeated += len(rows) - len(np.unique(rows))
                        store.write_unit(name, unit, _image_rows(part, rows))
    except OSError as error:
        raise StoreError(
            f"cannot import into {store.path}: {error.strerror or error}. Committed units are "
            "intact; put that right and run the same import again"
        ) from error
    return ImportReport(
        record,
        buckets.n_rows,
        len(units) - len(done),
        len(done),
        counts.dropped,
        counts.cut,
        counts.faint,
        counts.tiny,
        counts.repeated,
    )


def _room(store: BoxStore) -> Path | None:
    """Where temporary files go: inside a local store, which has room for its own boxes."""
    return store.path if isinstance(store.path, Path) else None


@dataclass
class _Buckets:
    """Detections sorted by unit, in temporary files."""

    folder: Path
    unit_of: Mapping[int, int]
    n_rows: int = 0
    _held: dict[int, list[tuple[int, int, float, list[float]]]] = field(default_factory=dict)
    _n_held: int = 0

    def add(self, image_id: int, category_id: int, score: float, box: list[float]) -> None:
        unit = self.unit_of[image_id]
        self._held.setdefault(unit, []).append((image_id, category_id, score, box))
        self.n_rows += 1
        self._n_held += 1
        if self._n_held >= _HELD:
            self.flush()

    def flush(self) -> None:
        for unit, rows in self._held.items():
            with self._path(unit).open("ab") as file:
                file.write(np.array(rows, _ROW).tobytes())
        self._held, self._n_held = {}, 0

    def read(self, unit: int) -> NDArray[Any]:
        self.flush()
        path = self._path(unit)
        return np.fromfile(path, _ROW) if path.exists() else np.zeros(0, _ROW)

    def _path(self, unit: int) -> Path:
        return self.folder / f"{unit}.rows"


@dataclass
class _Counts:
    """What happened to the detections of a file."""

    dropped: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    faint: int = 0
    tiny: int = 0
    repeated: int = 0


def _sort_into(
    buckets: _Buckets,
    results: Sequence[Path],
    images: Mapping[int, ImageInfo],
    categories: Categories,
    score_floor: float,
) -> _Counts:
    unknown_images: Counter[int] = Counter()
    unknown_categories: Counter[int] = Counter()
    counts = _Counts()
    for path in results:
        for entry in iter_results(path):
            image_id, category_id = entry["image_id"], entry["category_id"]
            image = images.get(image_id)
            if image is not None:
                _check_name(path, entry, image)
            if image is None:
                unknown_images[image_id] += 1
            if category_id not in categories:
                unknown_categories[category_id] += 1
            elif image is not None:
                score, corners = entry["score"], _clipped(entry["bbox"], image)
                if score < score_floor:
                    counts.dropped["below the score floor"] += 1
                elif isinstance(corners, str):
                    counts.dropped[corners] += 1
                else:
                    counts.cut += _reaches_out(entry["bbox"], image)
                    counts.tiny += max(entry["bbox"][2:]) <= 1
                    counts.faint += 0 < score < 0.5 / SCORE_STEPS
                    buckets.add(image.id, category_id, score, corners)
    if unknown_images or unknown_categories:
        raise DataError(_wrong_ids(results, unknown_images, unknown_categories, images, categories))
    return counts


def _check_name(path: Path, entry: Mapping[str, Any], image: ImageInfo) -> None:
    """Raise DataError where a detection names another file than its image id."""
    named = entry.get("file_name")
    if not isinstance(named, str) or not PurePosixPath(named).suffix:
        return
    if not same_name(named, image.file_name):
        raise DataError(
            f"{path}: a detection of image {image.id} has the file_name {shortened(named)}, and by "
            f"the annotations {image.id} is {image.file_name}: the ids are those of another list. "
            "Give each detection the id that its file has in the annotations"
        )


def _clipped(box: list[float], image: ImageInfo) -> list[float] | str:
    """Corners cut to the image, or why the box is dropped."""
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return "no area"
    corners = [
        min(max(x, 0.0), image.width),
        min(max(y, 0.0), image.height),
        min(x + width, image.width),
        min(y + height, image.height),
    ]
    return corners if corners[2] > corners[0] and corners[3] > corners[1] else "outside its image"


def _reaches_out(box: list[float], image: ImageInfo) -> bool:
    """Whether a box leaves its image by more than the store rounds away."""
    x, y, width, height = box
    outside = max(-x, -y, x + width - image.width, y + height - image.height)
    return outside > 0.5 / COORDINATE_STEPS


def _image_rows(part: Sequence[ImageInfo], rows: NDArray[Any]) -> list[ImageRow]:
    rows = rows[np.argsort(rows["image"], kind="stable")]
    found: list[ImageRow] = []
    for image in part:
        start, stop = np.searchsorted(rows["image"], [image.id, image.id + 1])
        own = rows[start:stop]
        boxes = Boxes(own["box"], own["score"], own["category"], image.width, image.height)
        size = (image.width, image.height)
        found.append(ImageRow(image.id, image.file_name, *size, boxes, split=image.split))
    return found


def _wrong_ids(
    results: Sequence[Path],
    unknown_images: Counter[int],
    unknown_categories: Counter[int],
    images: Mapping[int, ImageInfo],
    categories: Categories,
) -> str:
    parts: list[str] = []
    if unknown_images:
        parts.append(
            f"{unknown_images.total()} detections are of {len(unknown_images)} images that the "
            f"data set does not have, such as {str(list(unknown_images)[:_NAMED])[1:-1]} (it has "
            f"{len(images)} images): are these results of another split?"
        )
    if unknown_categories:
        text = (
            f"{unknown_categories.total()} detections have unknown category ids: "
            f"{str(list(unknown_categories)[:_NAMED])[1:-1]}; {categories.describe_ids()}."
        )
        if 0 in unknown_categories:
            text += " The ids look like positions from 0: map them to the data set's own ids first"
        parts.append(text)
    return f"nothing imported from {', '.join(str(path) for path in results)}. " + " ".join(parts)


def _sha256(results: Sequence[Path]) -> str:
    whole = hashlib.sha256()
    digests: list[str] = []
    for path in results:
        try:
            with Path(path).open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        except FileNotFoundError as error:
            raise DataError(f"no COCO results file at {path}") from error
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
    if not digests:
        raise UsageError("no results file to import")
    if len(set(digests)) < len(digests):
        raise DataError(
            "two of the results files are the same, every detection would count twice: "
            + ", ".join(str(path) for path in results)
        )
    if len(digests) == 1:
        return digests[0]
    whole.update(",".join(digests).encode())
    return whole.hexdigest()
