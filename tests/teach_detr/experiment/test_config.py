"""The file of an experiment, and the runs that it means."""

from pathlib import Path

import pytest

from student_train.errors import ConfigError
from teach_detr.experiment.config import Plan, named_teachers, plan_of, read_experiment
from teach_detr.experiment.grid import Cell, Grid
from teach_detr.experiment.own_data import arms_of

COMMITTED = sorted((Path(__file__).parents[3] / "docs" / "experiments").glob("*.toml"))
FILE = """
out = "out"
seeds = [3, 5]
[data]
root = "coco"
[store]
path = "boxes"
[student]
preset = "dino-micro"
[student.settings]
steps = 7
optim = { lr = 1e-3 }
[conditions.complete]
[conditions.missing]
missing = 0.4
settings = { "optim.lr" = 2e-3 }
[arms.none]
teachers = "none"
[arms.fused]
teachers = "a,b"
settings = { teachers = { combine = "fused" } }
[arms.merged]
teachers = "none"
merge = "a"
"""


def read(tmp_path: Path, text: str = FILE, **overrides: str) -> Plan:
    path = tmp_path / "x.toml"
    path.write_text(text)
    return read_experiment(path, overrides)


def test_cells_are_whole_comparisons_seed_by_seed(tmp_path: Path) -> None:
    cells = list(Grid(read(tmp_path)).cells())
    assert len(cells) == 2 * 2 * 3
    assert [cell.seed for cell in cells] == [3] * 6 + [5] * 6
    assert cells[0] == Cell("complete", "none", 3)
    assert cells[0].name == "complete/none/seed-3"


def test_an_arm_may_belong_to_some_conditions_only(tmp_path: Path) -> None:
    text = FILE.replace('merge = "a"', 'merge = "a"\nonly = ["missing"]')
    cells = list(Grid(read(tmp_path, text)).cells())
    assert {cell.condition for cell in cells if cell.arm == "merged"} == {"missing"}
    assert len(cells) == 2 * (3 + 2)


def test_later_settings_win_and_arms_have_theirs(tmp_path: Path) -> None:
    grid = Grid(read(tmp_path))
    words = grid.train_arguments(Cell("missing", "fused", 5))
    assert words.index("optim.lr=0.001") < words.index("optim.lr=0.002")
    assert words[words.index("--teachers") + 1] == "a,b"
    assert "teachers.combine=fused" in words
    assert "seed=5" in words
    assert words[words.index("--preset") + 1] == "dino-micro"


def test_labels_are_the_data_sets_own_where_nothing_is_done_to_them(tmp_path: Path) -> None:
    grid = Grid(read(tmp_path))
    plain = grid.train_arguments(Cell("complete", "none", 3))
    assert not any("annotations" in word for word in plain)
    names = {
        (condition, arm): grid.label_file(condition, arm).name
        for condition in ("complete", "missing")
        for arm in ("none", "merged")
    }
    assert names == {
        ("complete", "none"): "instances_train2017.json",
        ("complete", "merged"): "complete+merged.json",
        ("missing", "none"): "missing.json",
        ("missing", "merged"): "missing+merged.json",
    }
    sampled = Grid(read(tmp_path, **{"data.images": "10"}))
    assert sampled.label_file("complete", "none").name == "sample.json"
    assert sampled.label_recipe("complete", "none") != grid.label_recipe("complete", "none")


def test_arguments_reach_into_tables(tmp_path: Path) -> None:
    given = {"conditions.missing.missing": "0.7", "conditions.missing.settings.optim.lr": "0.5"}
    plan = read(tmp_path, **given, **{"arms.fused.teachers": "c", "arms.new.teachers": "a"})
    assert plan.conditions["missing"].missing == 0.7
    grid = Grid(plan)
    assert grid.student(Cell("missing", "none", 3)).optim.lr == 0.5
    assert grid.student(Cell("complete", "none", 3)).optim.lr == 1e-3
    assert plan.arms["fused"].teachers == "c"
    assert plan.arms["fused"].settings == {"teachers": {"combine": "fused"}}
    assert plan.arms["new"].teachers == "a"


def test_teachers_are_named_with_their_place(tmp_path: Path) -> None:
    text = 'calibrate = ["d"]\n' + FILE.replace("[arms.none]", '[wrong.w]\nof = "a"\n[arms.none]')
    assert list(named_teachers(read(tmp_path, text))) == [
        ("arms.fused.teachers", "a"),
        ("arms.fused.teachers", "b"),
        ("arms.merged.merge", "a"),
        ("wrong.w.of", "a"),
        ("calibrate", "d"),
    ]


def test_without_conditions_there_is_one(tmp_path: Path) -> None:
    text = FILE.replace("[conditions.complete]\n", "").replace(
        '[conditions.missing]\nmissing = 0.4\nsettings = { "optim.lr" = 2e-3 }\n', ""
    )
    assert list(read(tmp_path, text).conditions) == ["as-given"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("seeds = [3, 5]", "seeds = [3, 3]"), "different numbers"),
        (("missing = 0.4", "missing = 1.4"), r"conditions.missing.missing is a share.*1\.4"),
        (("missing = 0.4", "mising = 0.4"), "mising.*Did you mean 'missing'"),
        (('out = "out"', 'out = "out"\nreference = "non"'), "Did you mean 'none'"),
        (('preset = "dino-micro"', ""), "student.preset is missing"),
        (("[arms.merged]", "[arms.'a/b']"), "names are folders"),
        (("[arms.none]", "[wrong.x]\nshare=2\n[arms.none]"), r"wrong.x.of is missing.*wrong.x.sha"),
        (('merge = "a"', 'only = ["mising"]'), "arms.merged.only.*Did you mean 'missing'"),
        (('teachers = "none"', 'teachers = "none"\nonly = ["missing"]'), "reference is needed"),
        (('root = "coco"', 'root = "coco"\nval_split = "none"'), "needs a split"),
        (("steps = 7", "stepps = 7"), "^unknown setting 'stepps'.*Did you mean 'steps'"),
        (('preset = "dino-micro"', 'preset = "dino-micr"'), "unknown preset.*'dino-micro'"),
        (('optim.lr" = 2e-3', 'optim.lr" = true'), "optim.lr.*number"),
        (("[arms.none]", '[cluster]\nlauncher = "ray"\n[arms.none]'), "one process"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    assert change[0] in FILE
    with pytest.raises(ConfigError, match=f"(?s){words}"):
        read(tmp_path, FILE.replace(*change))


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.stem)
def test_committed_experiments_can_be_read(file: Path) -> None:
    plan = read_experiment(file)
    assert len(plan.config.seeds) >= 3
    if plan.config.teachers:
        known = {*plan.config.teachers, *plan.wrong}
        assert {name for _, name in named_teachers(plan)} <= known


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    text = FILE.replace("missing = 0.4", "missing = 7").replace('merge = "a"', "merge_iou = 3")
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert len(caught.value.problems) == 2


def test_arms_of_a_store() -> None:
    assert list(arms_of(["a"])) == ["none", "a"]
    arms = arms_of(["a", "b"])
    assert list(arms) == ["none", "a", "b", "parallel", "fused"]
    assert arms["fused"]["teachers"] == "a,b"


def test_a_plan_from_python(tmp_path: Path) -> None:
    plan = read(tmp_path)
    assert plan_of(plan.config) == plan
