"""The demo's own logic; the whole of it runs in CI as `teach-detr demo --fast`."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from rich.console import Console

from box_store.errors import UsageError
from student_train.evaluation.evaluate import METRIC_NAMES, Metrics
from teach_detr.assessment.scoring import TeacherScore
from teach_detr.demo import demo as module
from teach_detr.demo.demo import run_demo
from teach_detr.demo.places import BASELINE, FAST, FULL, TAUGHT, Places
from teach_detr.demo.screen import Outcome, check_shape, show
from teach_detr.runs.stages import StageError, StageStopped


def outcome(folder: Path, before: float = 0.20, after: float = 0.25) -> Outcome:
    grid = folder / "grid.png"
    grid.write_bytes(b"")

    def values(ap: float) -> dict[str, float | None]:
        return dict.fromkeys(METRIC_NAMES, ap) | {"APl": None}

    scores = [TeacherScore(name, Metrics(values(0.5), (), 24, 9)) for name in ("a", "b", "fused")]
    counts = {"teachers": 2, "images": FAST.train_images + FAST.val_images, "boxes": 9, "bytes": 99}
    return Outcome(
        device="CPU",
        backend="torch",
        reason="no GPU",
        counts=counts,
        teachers=scores,
        students={BASELINE: values(before), TAUGHT: values(after)},
        rows=pa.table({"teacher": ["a"], "sure_boxes": [7]}),
        grid=grid,
        curves=None,
        seconds=61.4,
    )


def make_runs(folder: Path) -> Places:
    places = Places(folder)
    for name in (BASELINE, TAUGHT):
        weights = places.run(name) / "checkpoints" / "best.safetensors"
        weights.parent.mkdir(parents=True)
        weights.touch()
    return places


def test_the_screen_shows_the_table_with_a_negative_difference_as_it_is(tmp_path: Path) -> None:
    console = Console(record=True, width=120)
    show(outcome(tmp_path, 0.25, 0.213), Places(tmp_path), ["no Ultralytics"], console)
    text = console.export_text()
    assert "-3.7" in text
    assert "torch: no GPU" in text
    assert "left out  no Ultralytics" in text
    assert "1 min 1 s" in text
    assert "pip install 'teach-detr[plot]'" in text
    # undefined stays undefined
    assert " - " in next(line for line in text.splitlines() if "difference" in line)
    # the last thing on the screen is what to do with one's own data
    assert "student-train train" in text.strip().splitlines()[-1]


def test_a_complete_demo_passes_and_each_missing_piece_is_named(tmp_path: Path) -> None:
    places, good = make_runs(tmp_path), outcome(tmp_path)
    check_shape(good, FAST, places)
    with pytest.raises(StageError, match="boxes in the store"):
        check_shape(replace(good, counts={**good.counts, "boxes": 0}), FAST, places)
    with pytest.raises(StageError, match="a score for every teacher"):
        check_shape(replace(good, teachers=good.teachers[:1]), FAST, places)
    with pytest.raises(StageError, match="1530 images"):
        check_shape(good, FULL, places)
    (places.run(TAUGHT) / "checkpoints" / "best.safetensors").unlink()
    with pytest.raises(StageError, match="weights of both students"):
        check_shape(good, FAST, places)


def test_the_report_is_plain_json(tmp_path: Path) -> None:
    report = json.loads(json.dumps(outcome(tmp_path).to_json()))
    assert report["difference"]["AP"] == pytest.approx(0.05)
    assert report["difference"]["APl"] is None


def test_a_folder_of_something_else_or_of_another_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    for fresh in (False, True):
        with pytest.raises(UsageError, match="holds no demo"):
            run_demo(tmp_path, fast=True, fresh=fresh, console=Console(quiet=True))
    assert (tmp_path / "precious.txt").read_text() == "mine"
    other = tmp_path / "other"
    module._claim(other, FULL, fresh=False)
    with pytest.raises(UsageError, match="another size"):
        run_demo(other, fast=True, fresh=False, console=Console(quiet=True))


def test_stages_run_in_order_once_and_a_stopped_demo_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands are recorded in place of being run; the second call does what the first did not."""
    calls: list[str] = []
    stop_at = "baseline"

    def record(self: object, name: str, *arguments: object, quiet: bool = False) -> None:
        words = [str(argument) for argument in arguments]
        what = next((w for w in ("eval", "run", "import", "train") if w in words[:1]), name)
        if what == "train":
            what = Path(words[words.index("--out") + 1]).name
        calls.append(what)
        if what == stop_at:
            raise KeyboardInterrupt
        if what == "eval":
            folder = Path(words[words.index("--out") + 1])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{words[words.index('--split') + 1]}.json").write_text("[]")

    tiny = replace(FAST, train_images=16, val_images=1, other_images=1)
    monkeypatch.setattr(module, "FAST", tiny)
    monkeypatch.setattr(module._Demo, "command", record)
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "ultralytics" else name)
    monkeypatch.setattr(module, "mmdet_checkpoint", lambda out: out)
    shown: list[list[str]] = []

    def closing_screen(places, size, skipped, seconds, console):
        shown.append(skipped)
        return SimpleNamespace(to_json=dict)

    monkeypatch.setattr("teach_detr.demo.screen.closing_screen", closing_screen)
    folder = tmp_path / "demo"
    with pytest.raises(StageStopped, match="Run the same command again"):
        run_demo(folder, fast=True, fresh=False, console=Console(quiet=True))
    assert calls == ["eval", "eval", "run", "import", "baseline"]
    calls.clear()
    stop_at = ""
    run_demo(folder, fast=True, fresh=False, console=Console(quiet=True))
    assert calls == ["baseline", "taught"]
    assert "Ultralytics" in shown[0][0]
    calls.clear()
    run_demo(folder, fast=True, fresh=False, console=Console(quiet=True))
    assert calls == []


def test_what_the_demo_cannot_do_without_is_missed_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for missing, extra in (({"duckdb"}, "sql"), ({"mmdet", "ultralytics"}, "mmdet")):
        monkeypatch.setattr(
            module, "find_spec", lambda name, gone=missing: None if name in gone else name
        )
        with pytest.raises(UsageError, match=rf"teach-detr\[{extra}\]"):
            run_demo(tmp_path / "demo", fast=True, fresh=False, console=Console(quiet=True))
        assert not (tmp_path / "demo").exists()


def test_both_students_get_the_same_settings_but_for_the_teachers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(
        module._Demo, "command", lambda self, *a, quiet=False: commands.append([*map(str, a)])
    )
    stages = module._Demo(Places(tmp_path), FAST, Console(quiet=True))
    stages.train_students()
    first, second = commands
    differing = {(a, b) for a, b in zip(first, second, strict=True) if a != b}
    assert differing == {
        ("none", "all"),
        (str(tmp_path / "runs" / "baseline"), str(tmp_path / "runs" / "taught")),
    }
    assert "seed=7" in first


def test_a_failing_stage_says_what_it_said(tmp_path: Path) -> None:
    stages = module._Demo(Places(tmp_path), FAST, Console(quiet=True))
    with pytest.raises(StageError, match=r"teach_detr.cli ended with 1.*no store"):
        stages.python("teach_detr.cli", "check", tmp_path / "no store", quiet=True)
