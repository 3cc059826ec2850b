"""The ten minutes on a GPU: limits, what stays of a stopped part, and a rehearsal of all."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from student_train.bench import gpu
from student_train.bench.gpu import PARTS, Part, main, run
from tests.forked import Forked


def part(code: str, seconds: int = 60) -> Part:
    return Part("one", seconds, ("-c", code), ("-c", code), writes=False)


def test_all_parts_fit_into_ten_minutes_and_correctness_comes_first():
    assert sum(part.seconds for part in PARTS) <= 600
    assert [part.name for part in PARTS[:3]] == ["check", "encoder", "step"]


def test_a_part_out_of_time_is_stopped_with_its_children_and_its_lines_stay(tmp_path):
    code = (
        "import subprocess, sys, time; print('measured 1', flush=True); "
        "subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    )
    start = time.monotonic()
    outcome = run(part(code, seconds=3), tmp_path, dry=False)
    assert time.monotonic() - start < 40
    assert outcome.result == "out of time (3 s)"
    assert (tmp_path / "one.txt").read_text() == "measured 1\n"


def test_a_part_that_fails_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    bad, good = part("import sys; sys.exit(3)"), replace(part("print('fine')"), name="two")
    monkeypatch.setattr(gpu, "PARTS", (bad, good))
    assert main(["--out", str(tmp_path), "--dry"]) == 1
    found = json.loads((tmp_path / "parts.json").read_text())
    assert [one["result"] for one in found["parts"]] == ["failed (3)", "passed"]
    assert "not passed: one" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_how_to_rehearse(tmp_path, capsys):
    assert main(["--out", str(tmp_path)]) == 1
    assert "make gpu DRY=1" in capsys.readouterr().err


def forked(command, *, env, **options):
    """In place of a process that begins with seconds of imports; pytest has its own."""
    assert command[:3] == [sys.executable, "-u", "-m"]
    if command[3] == "pytest":
        return subprocess.Popen(command, env=env, **options)
    return Forked(command[3], command[4:], env)


@pytest.mark.slow
def test_a_rehearsal_runs_every_part_to_its_end(tmp_path, monkeypatch):
    named = {name: getattr(subprocess, name) for name in ("PIPE", "STDOUT")}
    monkeypatch.setattr(gpu, "subprocess", SimpleNamespace(Popen=forked, **named))
    assert main(["--out", str(tmp_path), "--dry"]) == 0
    for each in PARTS:
        assert (tmp_path / f"{each.name}.txt").stat().st_size > 50, each.name
        if each.writes:
            assert json.loads((tmp_path / f"{each.name}.json").read_text()), each.name
