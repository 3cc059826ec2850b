"""The worker: one teacher in one process, labelling one unit of images at a time.

The same class runs in a Ray actor, in a child process and in the caller's own process. It never
touches the store: rows go back to the driver, which is the only writer. So a worker that dies has
written nothing, a unit that is redone cannot race with a late survivor of its first attempt, and
the nodes of a cluster need to see the images but not the store.
"""

import socket
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from box_store.boxes import Boxes
from box_store.errors import TeachDetrError
from box_store.places.locations import RemoteError
from box_store.store.records import ImageRow
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec, Misread, Teacher
from teacher_infer.data.images import ImageError, ImageTask, load_image
from teacher_infer.teachers.class_map import ClassMap
from teacher_infer.teachers.loaded import load_teacher, weights_files, weights_sha256
from teacher_infer.workers.memory import is_out_of_memory, release_gpu_memory
from teacher_infer.workers.outage import Outage

# status of an image that the teacher, rather than the file, failed on
PREDICT_ERROR = "predict_error"
# and of one whose server did not answer for as long as one waits
UNREACHABLE = "unreachable"

# batches of images that a worker holds at once, decoded or being decoded: when it dies in silence,
# one of these images did it
SUSPECT_BATCHES = 3

_MAX_DECODERS = 4
_MAX_ERROR_CHARS = 500

Decoded = tuple[ImageTask, np.ndarray | ImageError]
# boxes in data-set categories, or what went wrong
Result = Boxes | ImageError


@dataclass(frozen=True)
class Loaded:
    """What a worker says of itself once its teacher is ready; `runtime` as in `Detector`."""

    class_names: tuple[str, ...]
    licence: str
    versions: dict[str, str]
    weights_sha256: str
    device: str
    host: str = ""
    runtime: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadFailed:
    """Why a teacher cannot be loaded, or not be read once it is. Sent as data: not every exception
    survives pickling."""

    message: str
    exit_code: int


@dataclass(frozen=True)
class Labelled:
    """A batch of finished images, and how many boxes had each class that the data set lacks.

    batch_size: what the worker has come down to because more does not fit into memory, else None.
    lowest_class: the lowest of the teacher's own class indices, None without boxes.
    """

    rows: tuple[ImageRow, ...]
    unmapped: dict[str, int]
    batch_size: int | None = None
    lowest_class: int | None = None


class WorkerBroken(Exception):
    """The process can compute no more (a CUDA error poisons its context): it must be replaced."""


class Worker:
    """A teacher and the threads that decode for it."""

    def __init__(self, spec: AdapterSpec) -> None:
        self._spec = spec
        self._teacher: Teacher | None = None
        self._batch_size = spec.batch_size
        self._lowest: int | None = None
        decoders = min(spec.threads or 1, _MAX_DECODERS)
        self._pool = ThreadPoolExecutor(decoders, thread_name_prefix="decode")

    def load(self) -> Loaded | LoadFailed:
        """Load the teacher. Anything a framework may raise comes back as `LoadFailed`."""
        try:
            self._teacher = teacher = load_teacher(self._spec)
            # after loading: a framework may have had to fetch the weights
            weights = weights_sha256(weights_files(self._spec))
        except TeachDetrError as error:
            return LoadFailed(str(error), error.exit_code)
        except Exception as error:
            return LoadFailed(f"{self._spec.adapter}:{self._spec.model}: {_text(error)}", 1)
        return Loaded(
            tuple(teacher.class_names),
            teacher.licence,
            dict(teacher.versions),
            weights,
            self._spec.device,
            socket.gethostname(),
            dict(teacher.runtime),
        )

    def label(
        self, tasks: Sequence[ImageTask], class_map: ClassMap, careful: bool = False
    ) -> Iterator[Labelled | LoadFailed]:
        """Rows of the images, in their order, a batch at a time; every image gets exactly one.

        An image that cannot be decoded, or that the teacher fails on, becomes a row with a status
        and the error's text. One whose server does not answer is tried again, after the others,
        for ten minutes; batches without rows say meanwhile that the worker lives. `careful` takes
        one image at a time, so that when this process dies the driver knows on which. A batch that
        does not fit into memory is halved, and so are all later ones. A teacher that is misread
        ends with a `LoadFailed`.

        Raises:
            WorkerBroken: the process must be replaced.
        """
        pending = {task.key: task for task in tasks}
        outage = Outage()
        try:
            while pending:
                for labelled in self._batches(tuple(pending.values()), class_map, careful, outage):
                    for row in labelled.rows:
                        del pending[row.key]
                    yield labelled
                if pending:
                    for _ in outage.pause():
                        yield Labelled((), {})
        except Misread as error:
            yield LoadFailed(str(error), error.exit_code)

    def _batches(
        self, tasks: Sequence[ImageTask], class_map: ClassMap, careful: bool, outage: Outage
    ) -> Iterator[Labelled]:
        """Finished batches, up to one that could not be fetched."""
        ahead = 0 if careful else (SUSPECT_BATCHES - 1) * self._spec.batch_size
        started = time.perf_counter()
        decoded = self._decoded(tasks, ahead)
        while taken := list(islice(decoded, 1 if careful else self._batch_size)):
            away = not outage.hopeless and any(_is_away(pixels) for _, pixels in taken)
            batch = [one for one in taken if not (away and _is_away(one[1]))]
            if any(not isinstance(pixels, ImageError) for _, pixels in batch):
                outage.over()
            unmapped: Counter[str] = Counter()
            self._lowest = None
            results = self._predict(batch, class_map, unmapped)
            now = time.perf_counter()
            seconds, started = (now - started) / len(taken), now
            rows = (_row(task, res, seconds) for (task, _), res in zip(batch, results, strict=True))
            reduced = self._batch_size < self._spec.batch_size
            size = self._batch_size if reduced else None
            yield Labelled(tuple(rows), dict(unmapped), size, self._lowest)
            if away:
                return

    def _decoded(self, tasks: Sequence[ImageTask], ahead: int) -> Iterator[Decoded]:
        """Images in order, of which at most `ahead` wait decoded in memory."""
        if not ahead:
            yield from map(_decode, tasks)
            return
        waiting = deque(self._pool.submit(_decode, task) for task in tasks[:ahead])
        following = iter(tasks[ahead:])
        while waiting:
            decoded = waiting.popleft().result()
            if (task := next(following, None)) is not None:
                waiting.append(self._pool.submit(_decode, task))
            yield decoded

    def _predict(
        self, batch: Sequence[Decoded], class_map: ClassMap, unmapped: Counter[str]
    ) -> list[Result]:
        """Boxes in data-set categories of each image, or its error."""
        images = [pixels for _, pixels in batch if not isinstance(pixels, ImageError)]
        found = iter(self._boxes(images, class_map, unmapped))
        return [pixels if isinstance(pixels, ImageError) else next(found) for _, pixels in batch]

    def _boxes(
        self, images: list[np.ndarray], class_map: ClassMap, unmapped: Counter[str]
    ) -> list[Result]:
        if not images:
            return []
        if self._teacher is None:
            raise AdapterError("label() was called before load()")
        try:
            found = self._teacher.predict(images)
            if len(found) != len(images):
                raise AdapterError(f"expected boxes of {len(images)} images, got {len(found)}")
            mapped: list[Result] = [class_map.apply(boxes) for boxes in found]
            for boxes in found:
                unmapped.update(class_map.count_unmapped(boxes))
                self._note(boxes)
            return mapped
        except Misread:
            raise
        except Exception as error:
            no_memory = is_out_of_memory(error)
            if "CUDA error" in str(error) and not no_memory:
                raise WorkerBroken(_text(error)) from error
            if len(images) == 1:
                height, width = images[0].shape[:2]
                return [ImageError(PREDICT_ERROR, _text(error), (width, height))]
        # not inside the handler: the traceback would keep the failed call's memory alive
        if no_memory:
            self._batch_size = min(self._batch_size, len(images) // 2)
            release_gpu_memory()
        results: list[Result] = []
        while len(results) < len(images):
            # without a lack of memory, one of them is to blame: find out which
            part = self._batch_size if no_memory else 1
            following = images[len(results) : len(results) + part]
            results += self._boxes(following, class_map, unmapped)
        return results

    def _note(self, boxes: Boxes) -> None:
        """Keep the lowest class index of a batch."""
        if len(boxes):
            lowest = int(boxes.class_ids.min())
            self._lowest = lowest if self._lowest is None else min(self._lowest, lowest)

    def close(self) -> None:
        """Stop the decoding threads and let go of the teacher."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._teacher = None


def _decode(task: ImageTask) -> Decoded:
    try:
        return task, load_image(task)
    except ImageError as error:
        return task, error
    except RemoteError as error:
        return task, ImageError(UNREACHABLE, str(error))


def _is_away(pixels: np.ndarray | ImageError) -> bool:
    return isinstance(pixels, ImageError) and pixels.status == UNREACHABLE


def _row(task: ImageTask, result: Result, seconds: float) -> ImageRow:
    if isinstance(result, ImageError):
        return failed_row(task, result, seconds)
    size = (result.width, result.height)
    return ImageRow(task.image_id, task.file_name, *size, result, seconds=seconds, split=task.split)


def failed_row(task: ImageTask, error: ImageError, seconds: float = 0.0) -> ImageRow:
    """The row of an image that yielded no boxes because something went wrong."""
    text = str(error)[:_MAX_ERROR_CHARS]
    return ImageRow(
        task.image_id,
        task.file_name,
        *error.size,
        None,
        error.status,
        text,
        seconds=seconds,
        split=task.split,
    )


def _text(error: BaseException) -> str:
    """One line that names the kind of error and what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
