"""Uploading a student, with its card, to a hub on this machine, and getting it back by name."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from box_store.errors import UsageError
from student_train.cli import app
from student_train.config import as_plain
from student_train.errors import ExportError
from student_train.export.card import model_card, record_of
from student_train.export.pushing import FILES, push_folder
from student_train.models import build_student
from student_train.presets import load_preset
from student_train.runs.checkpoint import save_weights
from student_train.runs.run_folder import RunFolder, class_space_to_plain
from student_train.runs.trained import load_student
from student_train.settings.overrides import Resolved
from tests.student_train.export.fake_hub import TOKEN, FakeHub, fake_hub
from tests.student_train.export.test_transformers_folder import CASES, SPACE, student

pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as found:
        yield found


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A trained run's folder: a small RF-DETR with two teachers, and its best evaluation."""
    preset, settings = CASES["rf_detr"]
    config = load_preset(preset)
    config = replace(
        config,
        model=replace(config.model, n_classes=3, **settings),
        data=replace(config.data, root=Path("/home/somebody/secret/photos")),
    )
    folder = RunFolder(tmp_path / "run")
    folder.write(
        Resolved(config, {}),
        SPACE,
        ["student-train"],
        {"train_annotations": "0" * 64, "init_hub": "org/start@abc"},
        licences={"sharp": "MIT", "late": "AGPL-3.0"},
    )
    torch.manual_seed(0)
    about = {
        "config": as_plain(config),
        "classes": class_space_to_plain(SPACE),
        "metrics": {"AP": 0.4321, "APl": None},
    }
    folder.checkpoints.mkdir()
    save_weights(folder.best, build_student(config.model).state_dict(), about)
    return folder.root


def commands(*lines: list[str], hub: FakeHub, cache: Path) -> Any:
    """`student-train` several times in a process of its own, that knows this hub and no other."""
    settings = {
        **os.environ,
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(cache),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    script = (
        "import sys; from student_train import cli\n"
        f"for line in {lines!r}:\n"
        "    sys.argv = ['student-train', *line]; cli.app(standalone_mode=False)"
    )
    line = [sys.executable, "-c", script]
    return subprocess.run(line, env=settings, capture_output=True, text=True, timeout=300)


def test_the_card_names_data_teachers_with_licences_and_metrics(run: Path) -> None:
    card = model_card(load_student(run), record_of(run), "org/photos", "apache-2.0")
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "license: apache-2.0" in card
    assert "| sharp | MIT |" in card
    assert "| late | AGPL-3.0 |" in card
    assert "| AP | APl |" in card
    assert "| 43.2 | - |" in card
    assert "trained on: photos, split train2017" in card
    assert "began with: `org/start@abc`" in card
    assert "3 classes: cat, dog, hen" in card
    # where it lay on somebody's disk stays there
    assert "somebody" not in card


def test_a_card_of_weights_that_stand_alone_claims_nothing() -> None:
    mine = student("rf_detr")
    card = model_card(mine, None, "org/photos", None)
    assert "license:" not in card
    assert "Their licences are not recorded" in card
    assert "## Metrics\n\nNot recorded." in card


@pytest.mark.slow
def test_what_is_pushed_comes_back_by_name(hub: FakeHub, run: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    out.mkdir()
    (out / "diary.txt").write_text("nobody else's business")
    done = commands(
        ["export", str(run), "--transformers", str(out), "--push", "org/photos", "--upload"],
        ["import", "hub:org/photos", "--out", str(again)],
        hub=hub,
        cache=tmp_path / "cache",
    )
    assert done.returncode == 0, done.stderr
    commit = hub.commit_of("org/photos")
    assert f"{hub.url}/org/photos/commit/{commit}" in done.stdout
    files = hub.repositories["org/photos"]
    assert set(files) == set(FILES)
    assert files["model.safetensors"] == (out / "model.safetensors").read_bytes()
    assert b"| late | AGPL-3.0 |" in files["README.md"]
    assert not hub.private["org/photos"]
    record = json.loads((again / "config.json").read_text())
    assert record["fingerprints"]["hub"] == f"org/photos@{commit}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).write_text(f"this is {name}")
    return tmp_path


def test_a_push_is_dry_until_told(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    dry = push_folder(folder, "org/photos", upload=False, private=True)
    assert dry.url is None
    assert dry.files["config.json"] == len("this is config.json")
    assert not hub.repositories


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("stranger", "the hub refused org/photos: .*`hf auth login` first"),
        ("offline", "org/photos was not uploaded: HF_HUB_OFFLINE is set"),
        ("away", "org/photos was not uploaded: .*Connection refused"),
    ],
)
def test_what_stands_in_the_way_of_an_upload_is_a_sentence(
    how: str, words: str, hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "http://127.0.0.1:9" if how == "away" else hub.url
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", how == "offline")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong" if how == "stranger" else TOKEN)
    with pytest.raises(ExportError, match=words) as error:
        push_folder(folder, "org/photos", upload=True, private=False)
    assert f"{folder} holds what to upload" in str(error.value)
    assert not hub.repositories


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--push", "org/name"], "--push uploads the folder of --transformers"),
        (["--transformers", "out", "--push", "name"], "--push is ORG/NAME, got 'name'"),
        (["--transformers", "out", "--push", "../x"], "--push is ORG/NAME"),
        (["--transformers", "out", "--upload"], "belong to --push"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: list[str], words: str, run: Path) -> None:
    done = CliRunner().invoke(app, ["export", str(run), *arguments])
    assert isinstance(done.exception, UsageError)
    assert words in str(done.exception)
