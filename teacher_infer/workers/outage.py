"""Waiting for a server of images that does not answer: that says nothing of any image."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

# between looks, growing; a worker gives a sign of life as often
_PAUSES_S = (1.0, 2.0, 5.0, 10.0)
_PATIENCE_S = 600.0


@dataclass
class Outage:
    """How long images could not be fetched, in seconds of this machine; None while they can."""

    since: float | None = None
    _looks: int = field(default=0, repr=False)

    @property
    def hopeless(self) -> bool:
        """The server has been away for longer than one waits."""
        return self.since is not None and time.monotonic() - self.since >= _PATIENCE_S

    def over(self) -> None:
        """An image has come."""
        self.since, self._looks = None, 0

    def pause(self) -> Iterator[None]:
        """Sleep until the next look; yields before, so that the caller can say that it lives."""
        self.since = time.monotonic() if self.since is None else self.since
        yield
        time.sleep(_PAUSES_S[min(self._looks, len(_PAUSES_S) - 1)])
        self._looks += 1
