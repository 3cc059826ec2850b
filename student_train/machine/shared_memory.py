"""The shared memory through which loader processes hand batches over."""

import shutil
from pathlib import Path
from typing import NamedTuple

SHARED_MEMORY = Path("/dev/shm")


class Room(NamedTuple):
    """Bytes of a file system."""

    total: int
    free: int


def free_shared_memory() -> Room | None:
    """How much room there is; None where the system does not say or sets no limit."""
    try:
        usage = shutil.disk_usage(SHARED_MEMORY)
    except OSError:
        return None
    return Room(usage.total, usage.free) if usage.total else None
