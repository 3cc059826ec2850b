"""What a command costs before it does anything: CPU seconds and peak memory, beside `import torch`.

    python docs/benchmarks/startup.py [STORE] [--out FILE]

Each side in a process of its own, in turns, the least of three. With a STORE also a count by
`teach-detr sql` beside the same count in bare DuckDB.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from student_train.runs.provenance import source_revision, versions

ROUNDS = 3


def cost(command: list[str]) -> tuple[float, float]:
    """CPU seconds and MiB of one process."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, code, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main(arguments: list[str]) -> None:
    """Print a line a command."""
    out = Path(arguments.pop(arguments.index("--out") + 1)) if "--out" in arguments else None
    stores = [a for a in arguments if not a.startswith("--")]
    python = [sys.executable]
    sides = {"import torch, timm": [*python, "-c", "import torch, timm"]}
    for program in ("teach_detr", "student_train", "teacher_infer"):
        sides[f"{program} --help"] = [*python, "-m", f"{program}.cli", "--help"]
    for store in stores:
        files = f"'{store}/boxes/**/*.parquet'"
        bare = f'import duckdb; print(duckdb.sql("select count(*) from {files}"))'
        sides["bare DuckDB, a count"] = [*python, "-c", bare]
        query = [store, "SELECT count(*) FROM boxes"]
        sides["teach-detr sql, a count"] = [*python, "-m", "teach_detr.cli", "sql", *query]
        sides["teach-detr check"] = [*python, "-m", "teach_detr.cli", "check", store]
        sides["teacher-infer status"] = [*python, "-m", "teacher_infer.cli", "status", store]
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, command in sides.items():
            costs[name].append(cost(command))
    rows = []
    for name, found in costs.items():
        seconds, mib = min(s for s, _ in found), min(m for _, m in found)
        print(f"{name:26} {seconds:6.2f} CPU s {mib:7.0f} MiB")
        rows.append({"command": name, "cpu_s": round(seconds, 3), "mib": round(mib)})
    if out:
        found = {"rows": rows, "versions": versions(), "source": source_revision()}
        out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
