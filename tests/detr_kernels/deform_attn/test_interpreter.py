"""Starts the interpreter's tests in a process with TRITON_INTERPRET=1 from the beginning."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_kernels_under_the_interpreter():
    here = Path(__file__)
    ceilings = here.parents[1] / "bench" / "test_ceiling_kernels.py"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "interpreter", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *map(str, (here.with_name("test_triton.py"), ceilings))],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=here.parents[3],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 70
