"""Joining a Ray cluster, or starting one on this machine for as long as it is needed."""

import logging
import os
import secrets
import signal
import socket
import threading
from typing import Any

import ray

from box_store.errors import TeachDetrError

_NAMESPACE = "teach-detr"
# only rows of boxes pass through the object store: no need for Ray's 30 % of all memory
_OBJECT_STORE_BYTES = 100 * 2**20
_CONNECT_S = 10
# Ray gives itself 30 s to start, which a machine that is busy with other things may not keep
_START_ATTEMPTS = 2


class RayUnavailable(TeachDetrError):
    """Ray does not start, or the cluster cannot be reached."""


class RayCluster:
    """A cluster that this process has joined.

    address: of a running cluster ("auto" finds one on this machine); None or "local" starts Ray on
        this machine alone, reachable through the loopback interface only, until `leave`. Inside a
        process that has Ray running already, that one is used.
    num_cpus: CPUs of a cluster started here; by default all.
    show_workers: whether what its processes print appears here.

    Raises RayUnavailable.
    """

    def __init__(
        self, address: str | None, num_cpus: int | None = None, show_workers: bool = False
    ) -> None:
        self._owns_ray = not ray.is_initialized()
        self._token_is_ours = False
        if self._owns_ray:
            self._join(address, num_cpus, show_workers)

    def _join(self, address: str | None, num_cpus: int | None, show_workers: bool) -> None:
        options: dict[str, Any] = {"address": address}
        handler = signal.getsignal(signal.SIGTERM)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if address in (None, "local"):
            # named, as an address in the environment must not turn this into somebody's cluster
            options = {
                "address": "local",
                "num_cpus": num_cpus,
                "_node_ip_address": "127.0.0.1",
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES,
                # Ray's workers otherwise give way to whatever else runs here (nice 15), and a
                # teacher beside any busy process all but stops
                "_system_config": {"worker_niceness": 0},
            }
            self._lend_token()
        else:
            _check_answers(address)
        for attempt in range(_START_ATTEMPTS):
            try:
                ray.init(
                    namespace=_NAMESPACE,
                    log_to_driver=show_workers,
                    logging_level=logging.ERROR,
                    **options,
                )
                if callable(handler) and threading.current_thread() is threading.main_thread():
                    # Ray's own aborts with a trace of the machine's stack
                    signal.signal(signal.SIGTERM, handler)
                return
            except Exception as error:
                ray.shutdown()
                if attempt + 1 < _START_ATTEMPTS:
                    continue
                lines = str(error).strip().splitlines() or [type(error).__name__]
                remedy = "; check --address" if address else ""
                text = f"Ray does not start: {lines[0].rstrip('.')}{remedy}"
                raise RayUnavailable(text) from error

    def _lend_token(self) -> None:
        """A token for this cluster's short life: Ray would else write one into the home folder."""
        chosen = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
        if not any(name in os.environ for name in chosen):
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
            self._token_is_ours = True

    def leave(self) -> None:
        """End the cluster if it was started here, else only leave it."""
        if self._owns_ray:
            ray.shutdown()
        if self._token_is_ours:
            os.environ.pop("RAY_AUTH_TOKEN", None)


def _check_answers(address: str) -> None:
    """RayUnavailable if nothing listens at HOST:PORT; Ray itself would wait for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        raise RayUnavailable(
            f"no Ray cluster answers at {address} ({error.strerror or error}); start one with `ray "
            "start --head`, or leave --address out"
        ) from error
