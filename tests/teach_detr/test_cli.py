"""The commands, from the outside: what they print, what they write, how they end."""

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from box_store import Selection
from teach_detr.cli import main


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]):
    """Runs the command line; gives exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), out, err

    return call


COUNT = "SELECT teacher, count(*) AS n FROM boxes GROUP BY teacher ORDER BY teacher"


def test_sql_prints_a_table(run, small_store) -> None:
    code, out, _ = run("sql", small_store.path, COUNT)
    assert code == 0
    assert "half" in out
    assert "oracle" in out


def test_sql_as_csv_and_json_is_nothing_but_that(run, small_store) -> None:
    _, out, _ = run("sql", small_store.path, COUNT, "--format", "csv")
    assert list(csv.DictReader(io.StringIO(out))) == [
        {"teacher": "half", "n": "3"},
        {"teacher": "oracle", "n": "6"},
    ]
    _, out, _ = run("sql", small_store.path, COUNT, "--format", "json")
    assert json.loads(out) == [{"teacher": "half", "n": 3}, {"teacher": "oracle", "n": 6}]


def test_sql_reads_a_file_binds_parameters_and_writes_parquet(
    run, small_store, tmp_path: Path
) -> None:
    query = tmp_path / "q.sql"
    query.write_text("SELECT * FROM boxes WHERE teacher = $who")
    out = tmp_path / "rows.parquet"
    code, _, err = run(
        *("sql", small_store.path, "-f", query, "--param", "who=half"),
        *("--format", "parquet", "--out", out),
    )
    assert code == 0, err
    assert pq.read_table(out).num_rows == 3


def test_sql_runs_a_documented_example_with_annotations(run, small_store) -> None:
    code, out, err = run(
        *("sql", small_store.path, "--example", "missed_by_all"),
        *("--annotations", small_store.annotations, "--format", "json"),
    )
    assert code == 0, err
    assert json.loads(out) == []
    code, out, _ = run("sql", small_store.path, "--example", "list")
    assert code == 0
    assert "missed_by_all" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["SELEC 1"], "SELEC"),
        (["SELECT * FROM boxs"], "boxs"),
        (["SELECT 1", "--example", "coverage"], "which query"),
        (["--example", "coverag"], "Did you mean 'coverage'"),
        (["SELECT $x", "--param", "x"], "expected NAME=VALUE"),
        (["SELECT 1", "--format", "parquet"], "needs --out"),
    ],
)
def test_sql_mistakes_end_in_a_sentence(run, small_store, arguments, sentence) -> None:
    code, _, err = run("sql", small_store.path, *arguments)
    assert code == 2
    assert sentence in err
    assert "Traceback" not in err


def test_no_store_is_a_sentence(run, tmp_path: Path) -> None:
    for command in (["sql", tmp_path, "SELECT 1"], ["check", tmp_path]):
        code, _, err = run(*command)
        assert code == 1
        assert err.startswith("error: ")


def test_select_writes_what_the_trainer_reads(run, small_store, tmp_path: Path) -> None:
    out = tmp_path / "s.arrow"
    query = "SELECT * FROM boxes WHERE teacher = 'oracle' AND image_id <= 3"
    code, text, err = run("select", small_store.path, query, "--out", out)
    assert code == 0, err
    assert "--boxes" in text
    selection = Selection.open(out)
    assert selection.teachers == ("oracle",)
    boxes = selection.boxes("oracle", 3)
    assert boxes is not None
    assert boxes.class_ids.tolist() == [3]
    # seen, and nothing selected in it
    empty = selection.boxes("oracle", 5)
    assert empty is not None
    assert len(empty) == 0


def test_every_answer_comes_as_json(run, small_store, tmp_path: Path) -> None:
    where = small_store.path
    rows = json.loads(run("sql", where, COUNT, "--json")[1])
    assert rows == [{"teacher": "half", "n": 3}, {"teacher": "oracle", "n": 6}]
    out = tmp_path / "rows.csv"
    said = json.loads(run("sql", where, COUNT, "--format", "csv", "--out", out, "--json")[1])
    assert said == {"out": str(out), "rows": 2}
    examples = json.loads(run("sql", where, "--example", "list", "--json")[1])
    assert {"example", "title", "needs"} == set(examples[0])
    for words in ((COUNT, "--format", "csv"), ()):
        code, _, err = run("sql", where, *words, "--json")
        assert code == 2
        assert "--json" in err
    query = "SELECT * FROM boxes WHERE teacher = 'half'"
    said = json.loads(run("select", where, query, "--out", tmp_path / "s.arrow", "--json")[1])
    assert said["teachers"] == {"half": {"images": said["teachers"]["half"]["images"], "boxes": 3}}
    code, text, err = run("report", where, "--out", tmp_path / "r.html", "--json")
    assert code == 0, err
    said = json.loads(text)
    assert (said["teachers"], said["boxes"], said["images_shown"]) == (2, 9, 0)
    assert said["bytes"] == (tmp_path / "r.html").stat().st_size
    words = ("--images", "2", "--val-images", "1", "--json")
    said = json.loads(run("scenes", tmp_path / "scenes", *words)[1])
    assert said["images"] == {"train2017": 2, "val2017": 1}


def test_check_is_silent_about_a_sound_store_and_ends_with_1_for_a_broken_one(
    run, small_store, tmp_path: Path
) -> None:
    import shutil

    code, out, _ = run("check", small_store.path, "--json")
    assert code == 0
    assert json.loads(out)["ok"] is True
    broken = tmp_path / "broken"
    shutil.copytree(small_store.path, broken)
    part = next(broken.glob("boxes/teacher=half/*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    code, out, _ = run("check", broken)
    assert code == 1
    assert part.name in out
    code, out, _ = run("check", broken, "--json")
    assert code == 1
    assert json.loads(out)["ok"] is False


def test_teachers_as_table_and_json(run, small_store) -> None:
    arguments = ("teachers", small_store.path, "--annotations", small_store.annotations)
    code, out, err = run(*arguments)
    assert code == 0, err
    assert "100.0" in out
    assert "fused" in out
    _, out, _ = run(*arguments, "--json")
    found = json.loads(out)
    rows = {row["teacher"]: row for row in found["teachers"]}
    assert found["fusion"]["best"] == "oracle"
    assert set(rows) == {"oracle", "half", "fused"}
    assert 0 <= rows["half"]["AP"] <= 1


def test_teachers_without_annotations_on_disk(run, small_store, tmp_path: Path) -> None:
    code, _, err = run("teachers", small_store.path, "--annotations", tmp_path / "none.json")
    assert code == 1
    assert "none.json" in err


def test_doctor_reports_as_json(run) -> None:
    code, out, _ = run("doctor", "--json")
    found = json.loads(out)
    assert code == (0 if found["healthy"] else 1)
    assert found["kernel"][0]["device"] == "cpu"
    assert found["kernel"][0]["reason"]
    assert found["versions"]["torch"]
    code, out, _ = run("doctor")
    assert "attention" in out


def test_the_prompt_answers_queries_and_mistakes_until_the_input_ends(
    small_store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run
) -> None:
    lines = iter(
        ["SELECT count(*) AS n", "FROM boxes;", "SELECT nonsense;", ".tables", ".example coverage"]
    )

    def read(prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("builtins.input", read)
    code, out, _ = run("sql", small_store.path)
    assert code == 0
    assert "9" in out
    assert "nonsense" in out
    assert "boxes(" in out


def test_what_of_the_annotations_was_dropped_is_said(run, small_store, tmp_path: Path) -> None:
    table = json.loads(Path(small_store.annotations).read_text())
    table["annotations"].append(table["annotations"][0] | {"id": 10**6, "bbox": ["1", "2", "3"]})
    path = tmp_path / Path(small_store.annotations).name
    path.write_text(json.dumps(table))
    code, out, err = run("teachers", small_store.path, "--annotations", path)
    assert code == 0, err
    assert "note      annotations: 1 x not a box (annotation 1000000" in " ".join(out.split("\n"))
    _, out, _ = run("teachers", small_store.path, "--annotations", path, "--json")
    (note,) = json.loads(out)["notes"]
    assert note.startswith("1 x not a box")
