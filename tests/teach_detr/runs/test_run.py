"""Whole runs from one file: what is asked of each stage, and what is passed over."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from box_store.errors import UsageError
from box_store.places.files import alone_in
from student_train.config import NO_TEACHERS, TrainConfig
from student_train.errors import ConfigError
from student_train.runs.recorded import read_settings
from teach_detr import cli
from teach_detr.runs.run import Pipeline, run_file
from teach_detr.runs.run_config import read_run, teacher_arguments
from teach_detr.runs.stages import StageError, StageStopped
from teach_detr.scenes.painting import make_split
from teacher_infer.teachers.parsing import parse_teacher

FILE = """
out = "{out}"
baseline = true
[data]
root = "{root}"
[teachers.yolox]
adapter = "onnx"
model = "yolox.onnx"
score_floor = 0.1
map = {{ motorbike = "motorcycle" }}
[student]
preset = "dino-micro"
[student.settings]
"teachers.score_floor" = 0.2
optim = {{ lr = 5e-4, drop_epochs = [1, 2] }}
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of three scenes a split."""
    root = tmp_path_factory.mktemp("scenes")
    make_split(root, "train2017", 3, 0, ["day"])
    make_split(root, "val2017", 3, 1, ["day"], first_id=100)
    return root


@pytest.fixture
def file(tmp_path: Path, scenes: Path) -> Path:
    """A configuration beside its teacher's weights."""
    (tmp_path / "yolox.onnx").write_bytes(b"")
    path = tmp_path / "run.toml"
    path.write_text(FILE.format(out=tmp_path / "out", root=scenes))
    return path


def settings_of(words: list[str]) -> TrainConfig:
    """What the trainer is told to train."""
    return read_settings(Path(words[words.index("--config") + 1])).config


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Records commands in place of running them; training leaves an evaluation behind."""
    said: list[list[str]] = []

    def python(self: Pipeline, module: str, *arguments: object, quiet: bool = False) -> None:
        words = [module, *map(str, arguments)]
        said.append(words)
        if "train" in words:
            results = Path(words[words.index("--out") + 1]) / "results"
            results.mkdir(parents=True, exist_ok=True)
            ap = 0.25 if settings_of(words).teachers.names == NO_TEACHERS else 0.31
            names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
            metrics = dict.fromkeys(names, ap) | {"APs": None}
            (results / "val2017.metrics.json").write_text(json.dumps(metrics))

    monkeypatch.setattr(Pipeline, "python", python)
    monkeypatch.setattr(
        "teach_detr.runs.run.BoxStore", type("Store", (), {"open": lambda path: path})
    )
    monkeypatch.setattr("teach_detr.runs.run.score_teachers", lambda store, annotations: [])
    return said


def run(file: Path, **overrides: str) -> dict:
    report = run_file(file, overrides, dry_run=False, console=Console(quiet=True))
    assert report is not None
    return report


def test_stages_in_order_and_their_arguments(file: Path, commands: list[list[str]]) -> None:
    report = run(file)
    assert [words[:2] for words in commands] == [
        ["teacher_infer.cli", "run"],
        ["teach_detr.cli", "check"],
        ["student_train.cli", "train"],
        ["student_train.cli", "train"],
    ]
    label, _, baseline, taught = commands
    weights = file.parent / "yolox.onnx"
    teacher = parse_teacher(label[label.index("--teacher") + 1])
    assert (teacher.name, teacher.adapter, teacher.model) == ("yolox", "onnx", str(weights))
    assert (teacher.score_floor, teacher.class_map) == (0.1, {"motorbike": "motorcycle"})
    assert label.count("--split") == 2
    assert settings_of(baseline).teachers.names == ("none",)
    assert settings_of(taught).teachers.names == ("all",)
    for words in (baseline, taught):
        config = settings_of(words)
        assert config.teachers.score_floor == 0.2
        assert config.optim.lr == 5e-4
        assert config.optim.drop_epochs == (1, 2)
        assert "--resume" in words
    assert report["difference"]["AP"] == pytest.approx(0.06)
    assert report["difference"]["APs"] is None
    assert json.loads((file.parent / "out" / "report.json").read_text()) == report


def test_what_is_done_is_passed_over_until_it_changes(
    file: Path, commands: list[list[str]]
) -> None:
    run(file)
    commands.clear()
    run(file)
    assert [words[1] for words in commands] == ["run", "check"]
    commands.clear()
    run(file, **{"student.teachers": "yolox"})
    trained = [words for words in commands if "train" in words]
    assert [settings_of(words).teachers.names for words in trained] == [("yolox",)]


def test_a_student_of_all_teachers_is_trained_again_with_a_new_one(
    file: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"yolox": "1f"}
    monkeypatch.setattr("teach_detr.runs.run.fingerprints", lambda store: dict(known))
    run(file)
    for change in ({"late": "2c"}, {"yolox": "3d"}):
        commands.clear()
        known |= change
        run(file)
        (trained,) = [words for words in commands if "train" in words]
        assert trained[trained.index("--out") + 1].endswith("taught"), "the baseline has none"


def test_teachers_are_read_as_on_a_command_line(file: Path, commands: list[list[str]]) -> None:
    """A value that is called like something beside the file is no path, and tables are tables."""
    (file.parent / "onnx").mkdir()
    (file.parent / "yolox").mkdir()
    run(file, **{"teachers.yolox.workers": "2", "teachers.yolox.format": "yolox"})
    words = commands[0]
    teacher = parse_teacher(words[words.index("--teacher") + 1])
    assert (teacher.adapter, teacher.workers) == ("onnx", 2)
    assert teacher.options["format"] == "yolox"
    file.write_text(
        file.read_text().replace('map = { motorbike = "motorcycle" }', "")
        + '[teachers.dino]\nadapter = "transformers"\nmodel = "m"\nprompts = { tv = "a set" }\n'
    )
    _, text = teacher_arguments(read_run(file), file.parent)
    assert parse_teacher(text).prompts == {"tv": "a set"}


def dry_run(file: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What it prints on stdout."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(["run", str(file), "--dry-run", *words])
    assert exit_.value.code == 0
    return capsys.readouterr().out


def test_dry_run_writes_nothing(
    file: Path, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = dry_run(file, capsys, "cluster.local_teachers=true")
    assert "preset dino-micro" in shown
    told = next(line for line in shown.splitlines() if "table student.settings: " in line)
    assert "teachers.score_floor=0.2" in told
    assert "optim.lr=0.0005" in told
    assert "--local" in shown
    assert [words[1] for words in commands] == ["plan"]
    assert "--local" not in commands[0]
    assert not (file.parent / "out").exists()


def test_dry_run_as_json(
    file: Path, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    train = json.loads(dry_run(file, capsys, "--json"))["train"]
    assert [arm["done"] for arm in train.values()] == [False] * len(train)
    assert all(
        arm["command"][:4] == ["python", "-m", "student_train.cli", "train"]
        for arm in train.values()
    )
    assert train["taught"]["settings"]["optim.lr"] == "0.0005"
    assert train["baseline"]["settings"]["teachers.names"] == "none"


@pytest.mark.parametrize(
    ("launcher", "start"),
    [
        ("torchrun", "torch.distributed.run --standalone --nproc-per-node 2 -m student_train.cli"),
        ("ray", "teach_detr.runs.ray_training --address auto --processes 2 --cpus 1 --gpus 0.5"),
    ],
)
def test_launchers(file: Path, launcher: str, start: str) -> None:
    config = read_run(
        file,
        {
            "cluster.launcher": launcher,
            "cluster.processes": "2",
            "cluster.gpus": "0.5",
            "cluster.address": "auto",
        },
    )
    words = Pipeline(config, file.parent, Console(quiet=True)).train_command("taught")
    assert " ".join(words).startswith(start)
    assert "train" in words


def test_a_stopped_run_says_how_to_go_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: Pipeline, module: str, *arguments: object, quiet: bool = False) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipeline, "python", stop)
    with pytest.raises(StageStopped, match="The same command goes on"):
        run(file)


def test_a_failed_stage_ends_the_run(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StageError, match=r"teacher_infer.cli ended with \d"):
        run(file, **{"cluster.local_teachers": "true"})
    assert "yolox" in capfd.readouterr().err


def test_mistakes_are_named_together(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[cluster]\nprocesses = 4\nlaucher = 'ray'\n")
    with pytest.raises(ConfigError) as error:
        read_run(path)
    for part in ("unknown setting 'cluster.laucher'", "cluster.launcher"):
        assert part in str(error.value)
    path.write_text("[cluster]\nprocesses = 4\n")
    with pytest.raises(ConfigError) as error:
        read_run(path)
    for part in ("out is missing", "data.root", "student.preset", "no teachers", "processes=4"):
        assert part in str(error.value)


def test_bad_tables_of_teachers(file: Path) -> None:
    file.write_text(file.read_text() + "[teachers.a]\nadapter = 'onnx'")
    with pytest.raises(UsageError, match=r"teachers\.a lacks the key 'model'"):
        teacher_arguments(read_run(file), file.parent)


def test_teachers_are_read_as_teacher_infer_reads_them(file: Path) -> None:
    """Prompts are a table, and a file that happens to be called like a value is left alone."""
    for name in ("onnx", "yolox"):
        (file.parent / name).mkdir()
    (file.parent / "y.onnx").touch()
    text = file.read_text()
    table = """
    [teachers.more]
    adapter = "transformers"
    model = "google/owlv2"
    prompts = { tv = "a set, switched on", "st. bernard" = "dog" }
    [teachers.other]
    adapter = "onnx"
    model = "y.onnx"
    format = "yolox"
    map = { motorbike = "none" }
    """
    file.write_text(text + table)
    more, other = teacher_arguments(read_run(file), file.parent)[-2:]
    expected = "more=transformers:google/owlv2,prompts.tv=a set, switched on"
    assert more == f"{expected},prompts.st. bernard=dog"
    assert other == f"other=onnx:{file.parent / 'y.onnx'},format=yolox,map.motorbike=none"


def test_a_foreign_folder_is_not_taken(file: Path, commands: list[list[str]]) -> None:
    other = file.parent / "out"
    other.mkdir()
    (other / "thesis.tex").touch()
    with pytest.raises(UsageError, match="holds no run"):
        run(file)


def test_a_data_set_that_is_not_there(file: Path, commands: list[list[str]]) -> None:
    with pytest.raises(UsageError, match="no split 'val2018'"):
        run(file, **{"data.val_split": "val2018"})
    assert commands == []


def test_settings_nested_or_dotted(file: Path) -> None:
    pipeline = Pipeline(read_run(file), file.parent, Console(quiet=True))
    config = pipeline.student("all").config
    assert (config.teachers.score_floor, config.optim.lr) == (0.2, 5e-4)


def test_two_at_once_in_one_folder_are_refused(file: Path, commands: list[list[str]]) -> None:
    out = file.parent / "out"
    out.mkdir()
    (out / "run.json").write_text("{}")
    with alone_in(out), pytest.raises(UsageError, match="another process is working in"):
        run(file)
    assert not commands
    run(file)
