"""One unit on its way through workers that may die over it, and the search for the image to blame.

A worker that dies in silence had up to three batches in its hands. These images are shown to the
next one by one; whichever kills its worker twice when tried alone is put in quarantine: it gets a
row with its status and error. What comes after them goes in batches again. Halving the batch
instead would load the teacher anew once for every halving, which costs more than 24 single images.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from box_store.store.records import ImageRow
from teacher_infer.data.images import ImageError, ImageTask
from teacher_infer.run.plan import Unit
from teacher_infer.workers.pool import Cause
from teacher_infer.workers.worker import failed_row

# status of an image that killed its worker, or kept it busy for ever, whenever it was tried alone
WORKER_DIED, TIMED_OUT = "worker_died", "timed_out"

_MAX_IMAGE_DEATHS = 2
# without a single row in between, and all in all
_MAX_DEATHS_IN_A_ROW, _MAX_DEATHS = 6, 60


@dataclass
class Attempt:
    """A unit, the rows that arrived so far, and the workers that died over it.

    alone: images to be shown one by one. deaths: in a row, without any image done. unexplained:
    batches that killed a worker although none of their images does so alone.
    """

    unit: Unit
    rows: dict[tuple[str, int], ImageRow] = field(default_factory=dict)
    alone: set[tuple[str, int]] = field(default_factory=set)
    deaths: int = 0
    all_deaths: int = 0
    suspects: Counter[tuple[str, int]] = field(default_factory=Counter)
    unexplained: int = 0
    _searching_crash: bool = False

    @property
    def remaining(self) -> tuple[ImageTask, ...]:
        """Images without a row."""
        return tuple(task for task in self.unit.tasks if task.key not in self.rows)

    @property
    def careful(self) -> bool:
        """The images to do next are done one at a time."""
        return bool(self.alone)

    @property
    def portion(self) -> tuple[ImageTask, ...]:
        """The images to do next: those under suspicion, or else all that remain."""
        remaining = self.remaining
        return tuple(task for task in remaining if task.key in self.alone) or remaining

    @property
    def hopeless(self) -> bool:
        """Too many workers died over this unit."""
        return self.deaths >= _MAX_DEATHS_IN_A_ROW or self.all_deaths >= _MAX_DEATHS

    def take(self, rows: Iterable[ImageRow]) -> None:
        """Keep the rows of a batch: they survive their worker."""
        was_careful = self.careful
        for row in rows:
            self.rows[row.key] = row
            self.alone.discard(row.key)
            self.deaths = 0
        if was_careful and not self.alone and self._searching_crash:
            self.unexplained += 1
            self._searching_crash = False

    def died(self, cause: Cause, reason: str, n_suspects: int) -> ImageRow | None:
        """A worker died over this unit; the row of the image to blame, once certain.

        n_suspects: images that it may have had in its hands, if it did not work one by one.
        """
        self.all_deaths += 1
        if cause is Cause.MACHINE or not self.remaining:
            return None
        self.deaths += 1
        if not self.careful:
            self.alone = {task.key for task in self.remaining[:n_suspects]}
            self._searching_crash = cause is Cause.CRASH
            return None
        task = self.portion[0]
        self.suspects[task.key] += 1
        if self.suspects[task.key] < _MAX_IMAGE_DEATHS:
            return None
        self._searching_crash = False
        self.alone.discard(task.key)
        return self._quarantine(task, cause, reason)

    def _quarantine(self, task: ImageTask, cause: Cause, reason: str) -> ImageRow:
        status = TIMED_OUT if cause is Cause.HUNG else WORKER_DIED
        error = ImageError(status, f"this image alone killed its worker twice: {reason}")
        self.rows[task.key] = row = failed_row(task, error)
        return row
