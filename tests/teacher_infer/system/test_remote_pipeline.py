"""Images, annotations, box store and run, all in a bucket: from the first label to the weights."""

import json
import signal
import subprocess
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from box_store.places.locations import location
from box_store.store.reader import read_images
from box_store.store.store import BoxStore
from student_train.cli import app
from student_train.runs.trained import load_student
from teacher_infer.cli import main

# the command, killed as soon as its second unit is in the store
DIES = """
import os, signal, sys
from box_store.store.store import BoxStore
write_unit, done = BoxStore.write_unit, []
def dies(self, *arguments, **options):
    done.append(write_unit(self, *arguments, **options))
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
BoxStore.write_unit = dies
from teacher_infer.cli import main
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_labels_and_training_in_a_bucket_survive_kill_9(
    server: Any, make_folder: Any, teacher: str
) -> None:
    data = server.upload(make_folder(12), "bucket/pipeline/coco")
    boxes, run = (server.url(f"bucket/pipeline/{name}") for name in ("boxes", "run"))
    request = ["run", "--local", "--data", data, "--split", "train", "--store", boxes]
    request += ["--teacher", f"tiny={teacher}", "--unit-size", "3"]
    killed = subprocess.run(
        [sys.executable, "-c", DIES, *request], capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    store = BoxStore.open(location(boxes))
    assert store.units_done("tiny") == {0, 1}
    with pytest.raises(SystemExit) as ended:
        main(request)
    assert not ended.value.code
    rows = read_images(store, "tiny").to_pylist()
    assert {row["image_id"]: row["status"] for row in rows} == dict.fromkeys(range(1, 13), "ok")

    arguments = ["train", "--preset", "dino-micro", "--data", data, "--train-split", "train"]
    arguments += ["--val-split", "none", "--store", boxes, "--out", run, "--json"]
    # loaders in processes of their own read from the bucket too
    settings = ["steps=2", "model.n_queries=8", "model.top_k=8", "data.workers=2", "threads=1"]
    done = CliRunner().invoke(app, [*arguments, *settings])
    assert done.exit_code == 0, (done.output, done.exception)
    assert json.loads(done.stdout)["run"] == run
    losses = (location(run) / "metrics.jsonl").read_bytes().decode()
    assert "teacher:tiny" in losses
    assert load_student(location(run)).config.steps == 2
