"""The file of an experiment, and the runs that it means."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from student_train.config import TrainConfig
from student_train.data.order import Order, steps_per_epoch
from student_train.errors import ConfigError
from teach_detr.experiment.config import Plan, named_teachers, plan_of, read_experiment
from teach_detr.experiment.estimate import run_steps
from teach_detr.experiment.grid import Cell, Grid
from teach_detr.experiment.own_data import arms_of, option_layers

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
    resolved = grid.student(Cell("missing", "fused", 5))
    assert resolved.config.optim.lr == 2e-3
    assert str(resolved.origins["optim.lr"]) == "table conditions.missing.settings"
    assert str(resolved.origins["steps"]) == "table student.settings"
    assert resolved.config.teachers.names == ("a", "b")
    assert resolved.config.teachers.combine == "fused"
    assert resolved.config.seed == 5
    assert resolved.config.preset == "dino-micro"
    assert resolved.config.keep_last == 1


def test_labels_are_the_data_sets_own_where_nothing_is_done_to_them(tmp_path: Path) -> None:
    grid = Grid(read(tmp_path))
    plain = grid.student(Cell("complete", "none", 3)).config.data
    assert (plain.train_annotations, plain.val_annotations) == (None, None)
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
    assert grid.student(Cell("missing", "none", 3)).config.optim.lr == 0.5
    assert grid.student(Cell("complete", "none", 3)).config.optim.lr == 1e-3
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


def with_options(tmp_path: Path, text: str = FILE, **options: object) -> Plan:
    path = tmp_path / "x.toml"
    path.write_text(text)
    keys = ("data", "store", "preset", "images", "epochs", "seeds", "init", "out")
    given = dict.fromkeys(keys) | options
    return read_experiment(path, {}, option_layers(**given))  # type: ignore[arg-type]


def test_options_are_stronger_than_the_file(tmp_path: Path) -> None:
    text = FILE.replace("steps = 7", "epochs = 3")
    plan = with_options(tmp_path, text, epochs=24, seeds=5, images=9, preset="dab-micro", out="o")
    assert plan.config.seeds == (0, 1, 2, 3, 4)
    assert (plan.config.data.images, plan.config.out) == (9, Path("o"))
    for cell in Grid(plan).cells():
        config = Grid(plan).student(cell).config
        assert (config.epochs, config.preset) == (24, "dab-micro")
    # what a condition says of its own stays
    assert Grid(plan).student(Cell("missing", "none", 0)).config.optim.lr == 2e-3


def test_an_option_that_would_not_reach_every_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--epochs: student\.settings\.steps=7 of the file"):
        with_options(tmp_path, epochs=24)
    text = FILE.replace("steps = 7", "").replace('optim.lr" = 2e-3', 'epochs" = 2')
    with pytest.raises(ConfigError, match=r"conditions\.missing\.settings\.epochs=2"):
        with_options(tmp_path, text, epochs=24)
    text = FILE.replace('combine = "fused" } }', 'combine = "fused" }, init = "w.pth" }')
    with pytest.raises(ConfigError, match=r"--init: arms\.fused\.settings\.init"):
        with_options(tmp_path, text, init=Path("other"))


def test_a_layout_of_ones_own(tmp_path: Path) -> None:
    text = FILE.replace(
        'root = "coco"',
        'train_images = "photos"\ntrain_annotations = "t.json"\nval_images = "photos"\n'
        'val_annotations = "v.json"\ntrain_split = "mine"\nval_split = "held"',
    )
    plan = read(tmp_path, text)
    assert plan.config.annotations("mine") == Path("t.json")
    assert plan.config.annotations("held") == Path("v.json")
    data = Grid(plan).student(Cell("complete", "none", 3)).config.data
    here = Path.cwd()
    assert (data.root, data.train_split, data.val_split) == (None, "mine", "held")
    assert (data.train_images, data.val_images) == (here / "photos", here / "photos")
    assert (data.train_annotations, data.val_annotations) == (here / "t.json", here / "v.json")
    with pytest.raises(ConfigError, match=r"data\.root is missing"):
        read(tmp_path, text.replace('val_images = "photos"', ""))


@given(
    n_images=st.integers(1, 400),
    batch=st.integers(1, 40),
    parts=st.integers(1, 3),
    epochs=st.integers(1, 4),
    steps=st.none() | st.integers(1, 300),
)
def test_steps_are_estimated_as_the_trainer_counts_them(
    n_images: int, batch: int, parts: int, epochs: int, steps: int | None
) -> None:
    config = replace(TrainConfig(), batch_size=batch * parts, epochs=epochs, steps=steps)
    order = Order(n_images, batch, shuffle=True, parts=parts)
    # what Inputs and Trainer make of it
    trained = config.total_steps(len(order) // parts)
    assert config.total_steps(steps_per_epoch(n_images, config.batch_size)) == trained
    assert len(order.batches()) == len(order)


def test_the_last_step_of_an_epoch_is_counted(tmp_path: Path) -> None:
    images = [{"id": i, "file_name": f"{i}.png", "width": 8, "height": 8} for i in range(1, 25)]
    table = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(table))
    text = FILE.replace("steps = 7", "epochs = 3\nbatch_size = 16").replace("coco", str(tmp_path))
    grid = Grid(read(tmp_path, text))
    # 24 images in batches of 16 are two steps
    assert run_steps(grid, grid.student(Cell("complete", "none", 3)).config) == 6
