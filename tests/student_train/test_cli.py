"""`student-train` as it is typed: exit codes, sentences, JSON."""

import json
import sys
from pathlib import Path

import pytest

from box_store.places.files import alone_in
from student_train import cli
from student_train.commands.results import prediction_line

FAST = ("steps=2", "model.n_queries=8", "model.top_k=8")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run the command line in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["student-train", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        out, err = capfd.readouterr()
        return code, out, err

    return run


def test_train_eval_predict_and_resume(call, toy: Path, store: Path, tmp_path: Path):
    run = tmp_path / "run"
    code, out, err = call(
        "train", "--preset", "dino-micro", "--data", toy, "--store", store, "--teachers", "sharp",
        "--out", run, *FAST,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "argument --teachers: teachers.names=sharp" in out
    assert "step 2/2" in out
    assert "sharp" in out
    assert "by class" in out

    code, out, err = call("train", "--resume", "--out", run, "steps=3")
    assert code == 0
    assert "resuming after step 2" in out

    code, out, err = call("eval", run, "--data", toy, "--split", "train2017", "--json")
    assert code == 0
    assert json.loads(out)["n_images"] == 12
    assert (run / "results/train2017.json").exists()
    code, out, err = call(
        "eval", run, "--data", toy, "--per-class", "--plot", "--confusion-score=0"
    )
    assert (code, err) == (0, "")
    assert "by class" in out
    written = {path.name for path in (run / "results").glob("val2017.*")}
    assert {f"val2017{end}" for end in (
        ".json", ".metrics.json", ".curves.json", ".confusion.json", ".curves.png",
        ".confusion.png",
    )} <= written  # fmt: skip
    assert len(json.loads((run / "results/val2017.confusion.json").read_text())["counts"]) == 4

    code, out, err = call("compare", run, run, "--plot", run / "both.png")
    assert (code, err) == (0, "")
    assert "AR100" in out
    assert (run / "both.png").exists()

    code, out, err = call("predict", run, toy / "val2017" / "001.png", "--json")
    assert code == 0
    assert json.loads(out)[0]["width"] == 80
    assert 0 < json.loads(out)[0]["best"]["score"] < 1


def test_a_dry_run_tells_and_writes_nothing(call, toy: Path, store: Path, tmp_path: Path):
    code, out, err = call(
        "train", "--preset", "dino-micro", "--data", toy, "--store", store, "--dry-run",
        "--out", tmp_path / "run", *FAST,
    )  # fmt: skip
    assert (code, err) == (0, "")
    for words in ("12 training images", "teacher sharp: 24 boxes", "2 steps of 4 images", "memory"):
        assert words in out
    assert "nothing was written" in out
    assert "teachers against the training annotations" in out
    assert "late: not judged: 12 annotated objects" in out
    assert "begins with random weights" in " ".join(out.split())
    assert not (tmp_path / "run").exists()


def test_a_dry_run_answers_in_json(call, toy: Path, store: Path, tmp_path: Path):
    code, out, err = call(
        "train", "--preset", "dino-micro", "--data", toy, "--store", store, "--dry-run", "--json",
        "--out", tmp_path / "run", *FAST,
    )  # fmt: skip
    assert code == 0
    said = json.loads(out)
    assert (said["dry_run"], said["would"], said["run"]) == (True, "start", str(tmp_path / "run"))
    assert (said["images"], said["val_images"], said["steps"]) == (12, 4, 2)
    assert said["settings"]["data.root"] == {"value": str(toy), "origin": "argument --data"}
    assert said["settings"]["steps"]["origin"] == "argument"
    assert set(said["teachers"]) == {"late", "sharp"}
    assert any("random weights" in line for line in said["warnings"])
    assert "dry run" in err
    assert not (tmp_path / "run").exists()


def test_a_whole_configuration_is_a_file(call, toy: Path, tmp_path: Path):
    first = ("train", "--preset", "dino-micro", "--data", toy, "--teachers", "none", *FAST)
    code, out, err = call(*first, "--out", tmp_path / "a")
    assert (code, err) == (0, "")
    assert out.startswith(f"starting  {tmp_path / 'a'}\n"), "the first words come first"
    assert "step 1/2" in out, "the first step speaks"
    assert "in percent: AP " in out
    file = tmp_path / "a" / "config.json"
    code, out, err = call("train", "--config", file, "--out", tmp_path / "b", "seed=1")
    assert (code, err) == (0, "")
    a, b = (json.loads((tmp_path / name / "config.json").read_text()) for name in "ab")
    assert b["config"] == a["config"] | {"seed": 1}
    assert b["origins"] == a["origins"] | {"seed": "argument"}
    code, _, err = call(
        "train", "--config", file, "--preset", "dino-micro", "--out", tmp_path / "c"
    )
    assert code == 2
    assert "leave --preset out" in err


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"error": "a.jpg is cut off"}, "skipped: a.jpg is cut off"),
        ({"detections": [{"category": "cat", "score": 0.875}], "best": None}, "x.jpg: cat 0.88"),
        (
            {"detections": [], "best": {"category": "cat", "score": 0.1234}},
            "x.jpg: nothing of score 0.3 or more (the best is cat 0.123)",
        ),
        ({"detections": [], "best": None}, "x.jpg: nothing of score 0.3 or more (no box at all)"),
    ],
)
def test_nothing_is_said_with_the_best_that_was_seen(row: dict, line: str):
    assert prediction_line({"file": "x.jpg"} | row, 0.3) == line


def test_two_trainers_do_not_share_a_run(
    call, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ["train", "--preset", "dino-micro", "--data", toy, "--out", tmp_path / "r", *FAST]
    monkeypatch.setattr("student_train.runs.run_folder.PATIENCE_S", 0.3)
    (tmp_path / "r").mkdir()
    with alone_in(tmp_path / "r"):
        code, _, err = call(*words)
    assert code == 2
    assert f"another process is working in {tmp_path / 'r'}" in " ".join(err.split())
    assert not (tmp_path / "r" / "config.json").exists()
    code, _, err = call(*words)
    assert (code, err) == (0, "")


def test_train_can_answer_in_json(call, toy: Path, tmp_path: Path):
    code, out, err = call(
        "train", "--preset", "dino-micro", "--data", toy, "--out", tmp_path / "r", "--json", *FAST
    )
    assert code == 0
    assert json.loads(out)["metrics"]["n_images"] == 4
    assert "step 2/2" in err


def test_a_file_is_stronger_than_the_preset_and_weaker_than_arguments(
    call, toy: Path, tmp_path: Path
):
    file = tmp_path / "my.toml"
    file.write_text(
        f'preset = "dino-micro"\nsteps = 5\neval_every = 0\n[data]\nroot = "{toy}"\n'
        "[loss.teacher.coefficients]\nsharp = 0.5\n"
    )
    code, out, _ = call("train", "--config", file, "--out", tmp_path / "run", "steps=1")
    assert code == 0
    assert f"settings  file {file}: eval_every=0.0 data.root={toy}" in out
    assert "settings  argument: steps=1" in out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("train", "--preset", "dino-micro"), 2, "--out is missing"),
        (("train", "--out", "r"), 2, "--preset is missing"),
        (("train", "--preset", "dino-mcro", "--out", "r"), 2, "Did you mean 'dino-micro'"),
        (("train", "--preset", "dino-micro", "--out", "r", "x"), 2, "'x' is not KEY=VALUE"),
        (("train", "--preset", "dino-micro", "--out", "r", "lr=1"), 2, "'optim.lr'"),
        (("train", "--preset", "dino-micro", "--out", "r"), 2, "give --data DIR"),
        (("train", "--preset", "dino-micro", "--out", "r", "--data", "no"), 1, "no folder or file"),
        (("train", "--config", "no.toml", "--out", "r"), 2, "no configuration file at no.toml"),
        (("train", "--resume", "--out", "r"), 2, "--preset is missing"),
        (("eval", "no"), 1, "no is not a run folder"),
        (("predict", "no", "x.jpg"), 1, "no image at x.jpg"),
        (("compare", "no"), 1, "no is not a run folder"),
        (("export", "no"), 2, "nothing to write: give --onnx FILE"),
        (("presets", "dino-demos"), 2, "Did you mean 'dino-demo'"),
        (("parity", "no"), 1, "no folder of golden sets"),
        (("bench", "--preset", "dino-micro", "--size", "8"), 2, "HEIGHTxWIDTH"),
        (("tarin",), 2, "No such command 'tarin'"),
    ],
)
def test_mistakes_end_in_a_sentence(call, tmp_path: Path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    got, out, err = call(*arguments)
    assert got == code
    assert words in err
    assert "Traceback" not in err
    # the first words may have been said, and nothing after them
    assert len(out.splitlines()) <= 1
    assert out.startswith(("starting  ", "reading   ")) or not out


def test_a_store_without_the_teacher_names_the_nearest(
    call, toy: Path, store: Path, tmp_path: Path
):
    code, _, err = call(
        "train", "--preset", "dino-micro", "--data", toy, "--store", store, "--teachers", "shrap",
        "--out", tmp_path / "r",
    )  # fmt: skip
    assert code == 1
    assert "Did you mean 'sharp'" in err


def test_presets_are_listed_with_their_size(call):
    code, out, _ = call("presets", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["dino-swin-l-384"]["published_AP_with_teachers"] == 58.9
    assert rows["dino-mobilenetv2"]["published_AP"] is None
    assert rows["dino-r50-4scale"]["parameters"] == 46_893_182
    _, out, _ = call("presets")
    assert "46.9 M" in out
    assert "This project has not measured them" in " ".join(out.split())


def test_weights_of_others_are_listed_with_their_licence(call):
    code, out, _ = call("presets", "--weights", "--json")
    rows = {row["place"]: row for row in json.loads(out)}
    assert code == 0
    row = rows["hub:ustc-community/dfine-small-coco"]
    assert (row["preset"], row["licence"], row["published_AP"]) == ("d-fine-s", "Apache-2.0", 48.5)
    code, out, _ = call("presets", "deim-s", "--weights")
    assert code == 0
    assert "model.activation=silu" in out
    assert "downloaded none" in " ".join(out.split())


def test_a_preset_shows_every_setting_with_its_origin(call):
    code, out, _ = call("presets", "dino-micro")
    assert code == 0
    assert "epochs = 4  (preset dino-micro)" in out
    assert "seed = 0\n" in out
    _, out, _ = call("presets", "dino-micro", "--json")
    row = json.loads(out)["settings"]["optim.lr"]
    assert (row["value"], row["origin"]) == (1e-3, "preset dino-micro")


def test_the_commands_are_a_promise(call):
    """A new or renamed option needs a decision: it is here, in the help and in the docs."""
    import typer

    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    options = {
        name: sorted(
            text
            for p in command.params
            for text in p.opts
            if text.startswith("--") and text != "--help"
        )
        for name, command in commands.items()
    }
    assert options == {
        "train": [
            "--boxes", "--calibrated", "--config", "--data", "--dry-run", "--init", "--json",
            "--out", "--overwrite", "--preset", "--resume", "--store", "--teachers",
            "--train-split", "--val-split",
        ],
        "eval": [
            "--confusion-score", "--data", "--device", "--json", "--out", "--per-class", "--plot",
            "--split", "--weights",
        ],
        "compare": ["--json", "--plot"],
        "export": [
            "--data", "--dynamic", "--for", "--fused-input", "--half", "--int8", "--json",
            "--licence", "--limit", "--official", "--onnx", "--private", "--push", "--sampler",
            "--size", "--split", "--tolerance", "--torch-export", "--transformers", "--upload",
            "--verify", "--weights",
        ],
        "verify": [
            "--data", "--json", "--layers", "--limit", "--run", "--size", "--split", "--threads",
            "--tolerance", "--weights",
        ],
        "import": [
            "--annotations", "--family", "--json", "--out", "--overwrite", "--partial", "--preset",
        ],
        "predict": [
            "--class-floor", "--device", "--every", "--json", "--out", "--overlap", "--threshold",
            "--tile", "--weights",
        ],
        "presets": ["--json", "--markdown", "--weights"],
        "parity": ["--double", "--json"],
        "bench": [
            "--batch", "--boxes", "--data", "--export", "--json", "--out", "--preset", "--presets",
            "--profile", "--run", "--size", "--steps", "--teachers",
        ],
    }  # fmt: skip


def test_an_official_file_becomes_a_run_and_goes_back(call, toy: Path, tmp_path: Path):
    import torch

    from student_train.models import build_student
    from student_train.models.official import export_official
    from student_train.presets import load_preset

    torch.manual_seed(0)
    student = build_student(load_preset("conditional-micro").model)
    torch.save({"model": export_official(student)}, tmp_path / "official.pth")
    annotations = toy / "annotations" / "instances_val2017.json"
    code, out, err = call(
        "import", tmp_path / "official.pth", "--out", tmp_path / "run", "--preset",
        "conditional-micro", "--annotations", annotations,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "class head: 0 of 3 classes by name, the rest anew (red, green, blue)" in out
    code, out, _ = call("eval", tmp_path / "run", "--data", toy, "--json")
    assert code == 0
    assert json.loads(out)["n_images"] == 4
    code, out, _ = call("export", tmp_path / "run", "--official", tmp_path / "back.pth", "--json")
    assert code == 0
    assert json.loads(out)[0]["tensors"] == len(export_official(student))

    code, out, err = call("import", tmp_path / "back.pth", "--out", tmp_path / "run")
    assert code == 1
    assert "holds a run already: --overwrite" in err
    code, out, _ = call("import", tmp_path / "back.pth", "--out", tmp_path / "again", "--json")
    assert code == 0
    assert json.loads(out)["source"] == "teach-detr"
