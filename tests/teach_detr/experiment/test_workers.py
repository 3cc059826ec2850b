"""Many runs over few devices: all are done, failures stay alone, and nothing outlives a stop."""

import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from student_train.machine.interrupt import was_stopped
from teach_detr.experiment.progress import CellProgress
from teach_detr.experiment.workers import Ended, Job, run_here, run_on_cluster
from teach_detr.scenes.painting import make_scenes

# python -m this: says where it ran; fails, or waits, if told so
MODULE = """
import os, signal, sys, time
from pathlib import Path
told, out = sys.argv[1], Path(sys.argv[2])
device = next((w for w in sys.argv if w.startswith("device=")), "device=auto")
out.write_text(f"{device} {os.environ.get('OMP_NUM_THREADS')}")
print("line", told)
if told == "fail":
    sys.exit("it cannot be")
if told.startswith("exit"):
    sys.exit(int(told.split()[1]))
if told == "sleep":
    sys.stdout.flush()
    time.sleep(0.7)
if told == "wait":
    signal.signal(signal.SIGTERM, lambda *_: (out.write_text("saved"), sys.exit(130)))
    out.with_suffix(".ready").touch()
    time.sleep(60)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "told_job.py").write_text(MODULE)
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return "told_job"


def job(module: str, folder: Path, name: str, told: str = "end") -> Job:
    return Job(name, (module, told, str(folder / f"{name}.out")), folder / "logs" / f"{name}.txt")


def test_every_device_works_and_a_failure_stays_alone(module: str, tmp_path: Path) -> None:
    jobs = [job(module, tmp_path, f"j{i}", "fail" if i == 2 else "end") for i in range(6)]
    ended: list[Ended] = []
    run_here(jobs, ["cpu", "cuda:1"], ended.append)
    assert {e.job.name for e in ended} == {j.name for j in jobs}
    failed = [e for e in ended if e.error]
    assert [e.job.name for e in failed] == ["j2"]
    assert "it cannot be" in str(failed[0].error)
    assert "j2.txt" in str(failed[0].error)
    said = {(tmp_path / f"{j.name}.out").read_text().split()[0] for j in jobs}
    assert said == {"device=cpu", "device=cuda:1"}
    threads = (tmp_path / "j0.out").read_text().split()[1]
    assert threads == str(max(1, len(os.sched_getaffinity(0)) // 2)), "runs share the cores"


def test_one_device_is_left_to_the_trainer(module: str, tmp_path: Path) -> None:
    run_here([job(module, tmp_path, "only")], ["auto"], lambda ended: None)
    assert (tmp_path / "only.out").read_text() == "device=auto None"
    assert (tmp_path / "logs" / "only.txt").read_text() == "line end\n"


@pytest.mark.parametrize(
    ("code", "stopped"),
    [(0, False), (1, False), (2, False), (130, True), (143, True), (137, False)],
)
def test_a_run_that_was_told_to_stop_did_not_fail(
    module: str, tmp_path: Path, code: int, stopped: bool
) -> None:
    jobs = [Job("j", (module, f"exit {code}", str(tmp_path / "j.out")), tmp_path / "j.txt")]
    ended: list[Ended] = []
    if stopped:
        with pytest.raises(KeyboardInterrupt):
            run_here(jobs, ["auto"], ended.append)
    else:
        run_here(jobs, ["auto"], ended.append)
        assert (ended[0].error is None) == (code == 0)
    assert was_stopped(code) is stopped
    assert was_stopped(-signal.SIGTERM)
    assert was_stopped(-signal.SIGINT)
    assert not was_stopped(-signal.SIGKILL)


def test_what_has_not_ended_is_reported_meanwhile(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teach_detr.experiment.workers.EVERY_S", 0.05)
    slow = Job("slow", (module, "sleep", str(tmp_path / "s.out")), tmp_path / "s.txt")
    text = io.StringIO()
    waited: list[str] = []
    console = Console(file=text, width=200)
    with CellProgress(console, 1, 0) as progress:

        def waiting(jobs: Sequence[Job]) -> None:
            waited.extend(job.name for job in jobs)
            progress.wait(jobs)

        run_here([slow], ["auto"], progress.add, waiting)
    assert set(waited) == {"slow"}
    lines = text.getvalue().splitlines()
    assert any(line == "[0/1] slow  line sleep" for line in lines), lines
    assert lines[-1].startswith("[1/1] slow  ")


def driver(module: str, folder: Path, call: str) -> subprocess.Popen[str]:
    """A process that runs two jobs, of which each waits; it is back when the first one does."""
    script = textwrap.dedent(
        f"""
        import signal
        from pathlib import Path
        from teach_detr.experiment.workers import Job, run_here, run_on_cluster
        # a test that runs in the background was told to ignore it
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        folder = Path({str(folder)!r})
        words = lambda name: ({module!r}, "wait", str(folder / (name + ".out")))
        jobs = [Job(name, words(name), folder / (name + ".txt")) for name in ("first", "second")]
        try:
            {call}
        except KeyboardInterrupt:
            print("stopped")
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    comes_true((folder / "first.ready").exists)
    return process


def comes_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_stop_lets_jobs_save_and_starts_no_more(module: str, tmp_path: Path) -> None:
    process = driver(module, tmp_path, 'run_here(jobs, ["auto"], print)')
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert said == "stopped\n"
    assert (tmp_path / "first.out").read_text() == "saved"
    assert not (tmp_path / "second.out").exists()


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process of its parent's end"
)
def test_jobs_do_not_outlive_a_driver_that_is_killed(module: str, tmp_path: Path) -> None:
    process = driver(module, tmp_path, 'run_here(jobs, ["auto"], print)')
    process.kill()
    process.communicate(timeout=60)
    comes_true(lambda: (tmp_path / "first.out").read_text() == "saved")


@pytest.mark.slow
def test_a_stop_reaches_the_jobs_of_a_cluster(module: str, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    start = (
        "from teacher_infer.workers.ray_cluster import RayCluster; RayCluster('local', num_cpus=1)"
    )
    process = driver(module, tmp_path, f"{start}; run_on_cluster(jobs, 'local', 1, 0, print)")
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=90)
    assert said == "stopped\n"
    assert (tmp_path / "first.out").read_text() == "saved"
    assert not (tmp_path / "second.out").exists()


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Where a cluster of one CPU answers, which this process has joined."""
    ray = pytest.importorskip("ray")
    from teacher_infer.workers.ray_cluster import RayCluster

    cluster = RayCluster(None, num_cpus=1)
    yield ray.get_runtime_context().gcs_address
    cluster.leave()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_cluster_runs_them_too(module: str, tmp_path: Path) -> None:
    ended: list[Ended] = []
    jobs = [job(module, tmp_path, "a"), job(module, tmp_path, "b", "fail")]
    run_on_cluster(jobs, "auto", 1, 0, ended.append)
    errors = {e.job.name: e.error for e in ended}
    assert errors["a"] is None
    assert "it cannot be" in str(errors["b"])
    assert (tmp_path / "a.out").exists()


@pytest.mark.slow
def test_a_run_does_not_hang_on_those_before_it(tmp_path: Path) -> None:
    root = make_scenes(tmp_path / "toys", n_train=8, n_val=4, seed=1)

    def trained(name: str, seed: int) -> Job:
        words = ("student_train.cli", "train", "--preset", "dino-micro", "--data", str(root))
        words += ("--teachers", "none", "--out", str(tmp_path / name), "steps=3", "eval_every=0")
        return Job(name, (*words, f"seed={seed}"), tmp_path / f"{name}.txt")

    def said(name: str) -> bytes:
        return (tmp_path / name / "results" / "val2017.json").read_bytes()

    ended: list[Ended] = []
    run_here([trained("first", 0), trained("other", 1), trained("again", 0)], ["cpu"], ended.append)
    assert [each.error for each in ended] == [None] * 3
    # the third ran in the process of the first two, on photos that they had decoded
    assert said("again") == said("first")
    assert said("other") != said("first")
