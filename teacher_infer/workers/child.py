"""A worker in a process of its own, without Ray: `python -m teacher_infer.workers.child FD`.

The parent talks to it over a socket, whose number is the argument. A parent that dies closes the
socket, and the child leaves.
"""

import ctypes
import signal
import sys
from multiprocessing.connection import Connection

from teacher_infer.adapters.protocol import AdapterSpec
from teacher_infer.workers.worker import Worker, WorkerBroken

# linux/prctl.h
_PR_SET_PDEATHSIG = 1


def serve(connection: Connection) -> None:
    """Answer requests until the parent goes.

    The first is an `AdapterSpec`, answered with `Loaded` or `LoadFailed`; the others are arguments
    of `Worker.label`, each answered with its `Labelled` batches, then None; or a text when the
    process is broken.
    """
    spec = connection.recv()
    if not isinstance(spec, AdapterSpec):
        raise TypeError(f"expected an AdapterSpec, got {type(spec).__name__}")
    worker = Worker(spec)
    connection.send(worker.load())
    while True:
        arguments = connection.recv()
        try:
            for labelled in worker.label(*arguments):
                connection.send(labelled)
        except WorkerBroken as error:
            connection.send(str(error))
            return
        connection.send(None)


def leave_with_parent() -> None:
    """Let the system end this process when its parent dies, even while a model hangs in it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    leave_with_parent()
    try:
        serve(Connection(int(sys.argv[1])))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        sys.exit(0)
