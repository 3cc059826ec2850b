"""The trainer's processes on a Ray cluster: one dies, all go on from the last saved state."""

import json
import threading
import time
from pathlib import Path

import pytest

from box_store.errors import TeachDetrError
from teach_detr.scenes.painting import make_split

# Ray warns of its own settings, in its own modules
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

TRAIN = ["train", "--preset", "dino-micro", "--teachers", "none"]
SIZES = ["data.limit=8", "data.val_limit=2", "batch_size=2", "save_every=1", "epochs=2"]


@pytest.fixture(scope="module")
def cluster():
    """Two CPUs on the loopback interface, for all tests here."""
    pytest.importorskip("ray.train.torch", exc_type=ImportError)
    from teacher_infer.workers.ray_cluster import RayCluster

    cluster = RayCluster(None, num_cpus=3)
    yield
    cluster.leave()


def train(arguments: list[str], storage: Path, failures: int) -> None:
    from teach_detr.runs.ray_training import train_on_ray

    train_on_ray(
        arguments,
        address="local",
        processes=2,
        cpus=1,
        gpus=0,
        max_failures=failures,
        storage=storage,
    )


@pytest.mark.usefixtures("cluster")
def test_a_killed_process_is_replaced(tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    scenes, out = tmp_path / "scenes", tmp_path / "run"
    make_split(scenes, "train2017", 8, 0, ["day"])
    make_split(scenes, "val2017", 2, 1, ["day"], first_id=100)
    killed = threading.Event()

    def kill_one() -> None:
        states = out / "checkpoints"
        while not killed.is_set():
            time.sleep(0.05)
            if not any(states.glob("step-*.pt")):
                continue
            for process in psutil.process_iter(["cmdline"]):
                if "RayTrainWorker" in " ".join(process.info["cmdline"] or ()):
                    process.kill()
                    killed.set()
                    return

    thread = threading.Thread(target=kill_one, daemon=True)
    thread.start()
    words = [*TRAIN, "--data", str(scenes), "--out", str(out), "--resume", *SIZES]
    train(words, tmp_path / "ray", failures=2)
    assert killed.is_set()
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [record["step"] for record in records if record["kind"] == "train"]
    # every step once: neither lost nor recorded by both lives of the trainer
    assert steps == sorted(set(steps))
    assert max(steps) == 8
    assert [r["step"] for r in records if r["kind"] == "eval"][-1] == 8


@pytest.mark.usefixtures("cluster")
def test_a_mistake_is_not_tried_again(tmp_path: Path) -> None:
    words = ["train", "--preset", "dino-mcro", "--out", str(tmp_path / "run")]
    with pytest.raises(TeachDetrError, match="Did you mean 'dino-micro'"):
        train(words, tmp_path / "ray", failures=5)
