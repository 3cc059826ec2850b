"""What `teach-detr teachers` takes: CPU seconds and memory over stores of several sizes.

    python docs/benchmarks/teachers.py IMAGES ... [--out FILE] [--keep FOLDER]

Each size is a synthetic store of three teachers (`box_store.measure.synthetic`) and its annotation
file, looked at as a whole (`--max-images` is the number of images), in a process of its own. Prints
the exponents of growth from one size to the next.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from box_store.measure.__main__ import _write
from box_store.measure.synthetic import Law, write_annotations
from student_train.runs.provenance import source_revision, versions


def make(folder: Path, images: int) -> None:
    """A store and its annotations."""
    folder.mkdir(parents=True)
    law = Law(images)
    _write(folder / "store", law, 3)
    write_annotations(law, folder / "annotations.json")


def cost(folder: Path, images: int) -> tuple[float, float]:
    """CPU seconds and MiB of one run."""
    options = ["--annotations", str(folder / "annotations.json"), "--max-images", str(images)]
    program = [sys.executable, "-m", "teach_detr.cli", "teachers", str(folder / "store")]
    with subprocess.Popen([*program, *options, "--json"], stdout=subprocess.DEVNULL) as process:
        _, code, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise SystemExit(f"teachers ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def option(arguments: list[str], name: str) -> Path | None:
    """Take an option and its value out of the arguments."""
    if name not in arguments:
        return None
    at = arguments.index(name)
    arguments.pop(at)
    return Path(arguments.pop(at))


def main(arguments: list[str]) -> None:
    """Print a line a size."""
    out, keep = option(arguments, "--out"), option(arguments, "--keep")
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for images in map(int, arguments):
            folder = (keep or Path(temporary)) / str(images)
            if not folder.exists():
                make(folder, images)
            seconds, mib = cost(folder, images)
            row = {"images": images, "cpu_s": round(seconds, 2), "mib": round(mib)}
            if rows:
                last = rows[-1]
                row["exponent"] = round(
                    math.log(seconds / last["cpu_s"]) / math.log(images / last["images"]), 2
                )
            rows.append(row)
            print(row, flush=True)
            if out:
                found = {"rows": rows, "versions": versions(), "source": source_revision()}
                out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
