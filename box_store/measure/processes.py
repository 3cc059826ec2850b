"""How much memory and time other processes take, as Linux tells it; nothing elsewhere."""

import os
import re
from contextlib import suppress
from pathlib import Path


def resident_bytes(pid: int | str = "self") -> int | None:
    """Memory of a process that is in RAM, shared pages included; None if it is gone."""
    return _status(pid, "VmRSS")


def peak_bytes() -> int | None:
    """The most that this process has held at once since `forget_peak`."""
    return _status("self", "VmHWM")


def forget_peak() -> None:
    """Let `peak_bytes` begin anew (proc(5), clear_refs); without effect where that is not known."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def descendants(pid: int) -> list[int]:
    """Processes that a process has started, and those that these have started, and so on."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        # its children may have been started by any of its threads
        for path in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):
                waiting += [int(word) for word in path.read_text().split()]
        found.append(parent)
    return found[1:]


def command_line(pid: int) -> str:
    """The words a process was started with, or the title that it gave itself; "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used in all its threads; 0 if it is gone."""
    try:
        # the name, which may hold anything, stands in brackets
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(pid: int | str, key: str) -> int | None:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    found = re.search(rf"^{key}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
