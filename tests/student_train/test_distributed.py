"""Two processes equal one with the doubled batch: losses, and weights after the step."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from student_train.checkpoint import load_weights
from student_train.distributed import World, join_world
from student_train.errors import RunError
from student_train.metrics import read_metrics
from student_train.states import StateFolder

# images of one size, no flip and no crop: both see the same pixels with the same padding; frozen
# norms have no statistics of their own; denoising draws other noise on every process
SETTINGS = (
    "batch_size=4",
    "steps=2",
    "log_every=1",
    "optim.lr=1e-4",
    "optim.backbone_lr=1e-4",
    "model.norm=frozen",
    "model.dn_number=0",
    "model.n_queries=8",
    "model.top_k=8",
    "augment.flip=0",
    "augment.crop=0",
    "augment.short_sides=64",
    "eval_every=0",
    "device=cpu",
    "threads=1",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def train(toy: Path, store: Path, out: Path, n_processes: int) -> None:
    command = ["train", "--preset", "dino-tiny", "--data", toy, "--store", store, "--out", out]
    start = [sys.executable]
    if n_processes > 1:
        start += [
            *("-m", "torch.distributed.run", "--nproc-per-node", str(n_processes)),
            *("--master-addr", "127.0.0.1", "--master-port", str(free_port())),
        ]
    done = subprocess.run(
        [*start, "-m", "student_train.cli", *map(str, command), *SETTINGS],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_equal_one_with_the_doubled_batch(toy: Path, store: Path, tmp_path: Path):
    train(toy, store, tmp_path / "one", 1)
    train(toy, store, tmp_path / "two", 2)
    one, two = (
        [r for r in read_metrics(tmp_path / name / "metrics.jsonl") if r["kind"] == "train"]
        for name in ("one", "two")
    )
    assert [r["step"] for r in one] == [r["step"] for r in two] == [1, 2]
    # the first step starts from equal weights, the second from weights after one equal step
    for first, second, tolerance in zip(one, two, (1e-4, 1e-2), strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=tolerance)
        assert second["grad_norm"] == pytest.approx(first["grad_norm"], rel=100 * tolerance)
    a, b = (
        StateFolder(tmp_path / name / "checkpoints").load()[0]["model"] for name in ("one", "two")
    )
    # two steps of Adam move a weight by at most about 2 x lr, whatever its gradient
    assert all(torch.allclose(a[key], b[key], atol=4.1e-4) for key in a)
    same = sum(int(torch.isclose(a[k], b[k], atol=2e-5).sum()) for k in a)
    assert same > 0.95 * sum(value.numel() for value in a.values())
    counts = [
        json.loads((tmp_path / name / "results/val2017.metrics.json").read_text())["n_detections"]
        for name in ("one", "two")
    ]
    assert counts[0] == counts[1] > 0
    load_weights(tmp_path / "two/checkpoints/best.safetensors")


def test_one_process_needs_no_group():
    world = World()
    values = torch.tensor([1.0, 2.0])
    assert torch.equal(world.max(values), values)
    assert world.gather([1, 2]) == [1, 2]
    assert world.is_first
    world.barrier()
    world.close()


def test_a_group_that_cannot_form_says_how_to_start_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RunError, match="torchrun"):
        join_world("cpu")
