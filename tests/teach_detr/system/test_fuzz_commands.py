"""Whatever is done to a JSON file that a command reads, the command ends with 0, or with a sentence
and an exit code: the files of `tests.box_store.edits`, through each command's own entry.
"""

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from student_train.cli import main as student_train
from teach_detr.cli import main as teach_detr
from teacher_infer.cli import main as teacher_infer
from tests.box_store.edits import ANNOTATIONS, FUZZ, RESULTS, SEEDS, edits_of, written
from tests.tally import Tally

pytestmark = [pytest.mark.slow, pytest.mark.faults]

# {file} is the file that was edited
READ_ANNOTATIONS: dict[str, tuple[Callable[[], None], str]] = {
    "import --annotations": (
        teacher_infer,
        "import --store {new} --name lab --results {results} --annotations {file}",
    ),
    "plan": (
        teacher_infer,
        "plan --store {new} --images {images} --annotations {file} --teacher {teacher}",
    ),
    "data": (teach_detr, "data {file},images={images} --json"),
    "teachers": (teach_detr, "teachers {store} --annotations {file} --json"),
    "calibrate": (teach_detr, "calibrate {store} --annotations {file} --dry-run --json"),
    "sql": (teach_detr, "sql {store} --annotations {file} --example errors --json"),
    "select": (
        teach_detr,
        "select {store} FROM_truth --annotations {file} --out {out}.arrow --json",
    ),
    "check": (teach_detr, "check {store} --annotations {file} --json"),
    "report": (teach_detr, "report {store} --annotations {file} --out {out}.html --json"),
    "export": (
        teach_detr,
        "export {store} --format coco --annotations {file} --out {out}.json --json",
    ),
    "review": (teach_detr, "review {store} --data {file} --out {out}.review --json"),
    "train --dry-run": (
        student_train,
        "train --preset dino-micro --dry-run --out {out}.run data.train_annotations={file} "
        "data.train_images={images} data.val_split=none device=cpu data.workers=0",
    ),
    "train --dry-run, evaluation": (
        student_train,
        "train --preset dino-micro --dry-run --out {out}.run data.train_annotations={sound} "
        "data.train_images={images} data.val_annotations={file} data.val_images={images} "
        "device=cpu data.workers=0",
    ),
}
READ_RESULTS: dict[str, tuple[Callable[[], None], str]] = {
    "import": (
        teacher_infer,
        "import --store {new} --name lab --results {file} --annotations {sound}",
    ),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Sound files beside which one is edited, and a store made of them."""
    pytest.importorskip("onnx")
    from teacher_infer.bench.inputs import write_tiny_detector

    root = tmp_path_factory.mktemp("fuzz")
    images, model = root / "images", root / "model"
    images.mkdir()
    model.mkdir()
    for image in ANNOTATIONS["images"]:
        pixels = np.full((image["height"], image["width"], 3), 90, np.uint8)
        Image.fromarray(pixels).save(images / image["file_name"])
    write_tiny_detector(model, ("cat", "dog", "car"))
    for name, document in (("sound", ANNOTATIONS), ("results", RESULTS)):
        (root / f"{name}.json").write_text(json.dumps(document))
    found = {
        "root": str(root),
        "images": str(images),
        "sound": str(root / "sound.json"),
        "results": str(root / "results.json"),
        "store": str(root / "store"),
        "new": str(root / "new"),
        "out": str(root / "out"),
        "teacher": f"t=onnx:{model}/detector.onnx,format=boxes,classes={model}/classes.txt",
    }
    code, said = call(
        teacher_infer,
        "import --store {store} --name lab --results {results} --annotations {sound}",
        found,
    )
    assert code == 0, said
    return found


def call(main: Callable[..., None], line: str, places: dict[str, str]) -> tuple[int, str]:
    """The exit code of a command, and what it says on stderr; anything but an exit fails."""
    words = [word.format(**places) for word in line.split()]
    words = ["FROM truth" if word == "FROM_truth" else word for word in words]
    said = io.StringIO()
    argv, sys.argv = sys.argv, ["command", *words]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            main()
    except SystemExit as ended:
        return int(ended.code or 0), said.getvalue()
    finally:
        sys.argv = argv
    return 0, said.getvalue()


def check(
    name: str, document: Any, seed: int, places: dict[str, str], n_edits: int, tally: Tally
) -> None:
    main, line = (READ_ANNOTATIONS | READ_RESULTS)[name]
    for edits, _ in zip(edits_of(seed), range(n_edits), strict=False):
        file = written(Path(places["root"]) / "edited.json", document, edits)
        for kind in ("new", "out"):
            for left in Path(places["root"]).glob(f"{kind}*"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        code, said = call(main, line, places | {"file": str(file)})
        assert code in (0, 1, 2), said
        if code and name != "check":
            sentence = said.strip().splitlines()[-1]
            assert sentence.startswith("error: "), said
            assert len(sentence) > 20, said
        assert "Traceback" not in said
        n_commands = len(READ_ANNOTATIONS | READ_RESULTS)
        tally.add(
            f"edited files given to {n_commands} commands",
            f"exit code {code}{' and a sentence' * (code > 0)}",
        )


@pytest.mark.parametrize("name", READ_ANNOTATIONS)
@given(seed=SEEDS)
@settings(FUZZ, max_examples=3)
def test_annotations_through_every_command(
    name: str, places: dict[str, str], tally: Tally, seed: int
) -> None:
    check(name, ANNOTATIONS, seed, places, 8, tally)


@pytest.mark.parametrize("name", READ_RESULTS)
@given(seed=SEEDS)
@settings(FUZZ, max_examples=12)
def test_results_through_every_command(
    name: str, places: dict[str, str], tally: Tally, seed: int
) -> None:
    check(name, RESULTS, seed, places, 8, tally)


@pytest.mark.parametrize("name", [*READ_ANNOTATIONS, *READ_RESULTS])
def test_the_file_as_it_was_is_taken(name: str, places: dict[str, str]) -> None:
    main, line = (READ_ANNOTATIONS | READ_RESULTS)[name]
    for left in Path(places["root"]).glob("new*"):
        shutil.rmtree(left)
    file = places["results" if name in READ_RESULTS else "sound"]
    code, said = call(main, line, places | {"file": file})
    # five boxes are too few to fit a score map to
    assert code == (1 if name == "calibrate" else 0), said
