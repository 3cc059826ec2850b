"""Teachers as people write them: on the command line and in TOML."""

from dataclasses import replace
from pathlib import Path

import pytest

from box_store.errors import UsageError
from teacher_infer.teachers.parsing import KEYS, as_argument, load_teachers, parse_teacher
from teacher_infer.teachers.spec import check_names


def test_a_teacher_is_a_name_an_adapter_and_a_model():
    spec = parse_teacher("yolox=onnx:models/yolox_nano.onnx")
    assert (spec.name, spec.adapter, spec.model) == ("yolox", "onnx", "models/yolox_nano.onnx")
    assert (spec.workers, spec.device, spec.options, spec.class_map) == (1, "auto", {}, {})


def test_keys_are_read_as_what_they_are():
    spec = parse_teacher(
        "y=onnx:y.onnx,format=yolox, score_floor=0.01,nms_iou=0.6,top_k=50,batch_size=2,device=cpu,"
        "workers=3,num_cpus=0.5,num_gpus=0,threads=2,licence=MIT"
    )
    assert (spec.score_floor, spec.nms_iou, spec.top_k, spec.batch_size) == (0.01, 0.6, 50, 2)
    assert (spec.device, spec.workers, spec.num_cpus, spec.num_gpus) == ("cpu", 3, 0.5, 0)
    assert (spec.threads, spec.licence, spec.options) == (2, "MIT", {"format": "yolox"})
    assert parse_teacher("y=onnx:y.onnx,nms_iou=none").nms_iou == "none"
    assert parse_teacher("y=onnx:y.onnx,nms_iou=default").nms_iou is None


def test_what_the_adapter_is_given_includes_its_own_keys_and_the_licence():
    spec = parse_teacher("y=onnx:y.onnx,format=yolox,licence=MIT,top_k=7").adapter_spec("cpu", 2)
    assert (spec.model, spec.device, spec.threads, spec.top_k) == ("y.onnx", "cpu", 2, 7)
    assert spec.options == {"format": "yolox", "licence": "MIT"}


def test_files_get_absolute_paths_because_workers_may_run_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("y.onnx", "names.txt", "yolox"):
        (tmp_path / name).touch()
    spec = parse_teacher("y=onnx:y.onnx,format=yolox,classes=names.txt").adapter_spec("cpu", 1)
    assert spec.model == str(tmp_path / "y.onnx")
    assert spec.options == {"format": "yolox", "classes": str(tmp_path / "names.txt")}
    (tmp_path / "runs").mkdir()
    assert parse_teacher("y=student:runs").adapter_spec("cpu", 1).model == str(tmp_path / "runs")
    assert parse_teacher("y=transformers:some/hub").adapter_spec("cpu", 1).model == "some/hub"


def test_classes_are_mapped_by_name_or_id_or_left_out():
    spec = parse_teacher("y=onnx:y.onnx,map.motor bike=motorcycle,map.tv-set=72,map.dog=none")
    assert spec.class_map == {"motor bike": "motorcycle", "tv-set": "72", "dog": ""}


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("y=onnx:a,b.onnx,top_k=3", "a,b.onnx"),
        ("y=onnx:C:/models/a=b.onnx", "C:/models/a=b.onnx"),
        ("y=transformers:someone/detector", "someone/detector"),
        ("y=onnx:über/größe.onnx", "über/größe.onnx"),
    ],
)
def test_models_may_contain_what_separates_other_things(text, model):
    assert parse_teacher(text).model == model


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("onnx:y.onnx", "expected NAME=ADAPTER:MODEL"),
        ("y=onnx", "expected NAME=ADAPTER:MODEL"),
        ("=onnx:y.onnx", "expected NAME=ADAPTER:MODEL"),
        ("y=onnx:", "no model"),
        ("../y=onnx:y.onnx", "cannot name a teacher"),
        ("fused=onnx:y.onnx", "cannot name a teacher"),
        ("y=onx:y.onnx", "Did you mean 'onnx'"),
        ("y=onnx:y.onnx,score_flor=0.1", "Did you mean 'score_floor'"),
        ("y=onnx:y.onnx,fromat=yolox", "Did you mean 'format'"),
        ("y=onnx:y.onnx,score_floor=2", "score_floor"),
        ("y=onnx:y.onnx,workers=0", "workers"),
        ("y=onnx:y.onnx,workers=two", "got 'two'"),
        ("y=onnx:y.onnx,num_gpus=-1", "num_gpus"),
        ("y=onnx:y.onnx,num_cpus=nan", "num_cpus"),
        ("y=onnx:y.onnx,top_k=1,top_k=2", "given twice"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_reason(text, says):
    with pytest.raises(UsageError, match=says.replace("(", r"\(")):
        parse_teacher(text)


def test_toml_says_the_same_as_the_command_line(tmp_path: Path):
    (tmp_path / "y.onnx").touch()
    (tmp_path / "names.txt").touch()
    file = tmp_path / "teachers.toml"
    file.write_text(
        """
        [teachers.yolox]
        adapter = "onnx"
        model = "y.onnx"
        format = "yolox"
        classes = "names.txt"
        score_floor = 0.01
        workers = 2
        [teachers.yolox.map]
        "motor bike" = "motorcycle"
        dog = "none"
        [teachers.rcnn]
        adapter = "mmdet"
        model = "faster-rcnn_r50_fpn_1x_coco"
        weights = "random"
        """
    )
    yolox, rcnn = load_teachers(file)
    line = f"yolox=onnx:{tmp_path / 'y.onnx'},format=yolox,score_floor=0.01,workers=2"
    line += f",classes={tmp_path / 'names.txt'}"
    assert yolox == parse_teacher(line + ",map.motor bike=motorcycle,map.dog=none")
    assert rcnn == parse_teacher("rcnn=mmdet:faster-rcnn_r50_fpn_1x_coco,weights=random")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[teachers.y]\nadapter = 'onnx'", "lacks the key 'model'"),
        ("[teacher.y]\nadapter = 'onnx'", "expected one table .teachers.NAME.*got teacher"),
        ("", "expected one table"),
        ("teachers = 3", "expected one table"),
        ("[teachers]\ny = 3", "should be a table"),
        ("[teachers.y", "not a TOML file"),
        ("[teachers.y]\nadapter='onnx'\nmodel='m'\nwokers=2", "Did you mean 'workers'"),
    ],
)
def test_toml_that_cannot_be_meant_is_refused_with_a_reason(tmp_path: Path, content, says):
    file = tmp_path / "teachers.toml"
    file.write_text(content)
    with pytest.raises(UsageError, match=says):
        load_teachers(file)


def test_a_toml_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(UsageError, match="no file"):
        load_teachers(tmp_path / "none.toml")


def test_names_must_differ_and_there_must_be_one():
    one = parse_teacher("y=onnx:y.onnx")
    assert check_names([one]) == [one]
    with pytest.raises(UsageError, match="two teachers are called y"):
        check_names([one, one])
    with pytest.raises(UsageError, match="no teacher"):
        check_names([])


def test_every_key_has_help():
    assert all(key.help for key in KEYS.values())


def test_prompts_are_told_apart_from_keys(tmp_path):
    text = "owl=transformers:m,prompts.tv=a set, switched on,prompts.st. bernard=dog,top_k=9"
    spec = parse_teacher(text)
    assert spec.prompts == {"tv": "a set, switched on", "st. bernard": "dog"}
    assert spec.top_k == 9
    (tmp_path / "t.toml").write_text(
        '[teachers.owl]\nadapter = "transformers"\nmodel = "m"\nprompts = { tv = "a set" }\n'
    )
    assert load_teachers(tmp_path / "t.toml")[0].prompts == {"tv": "a set"}


def test_a_class_has_several_prompts_and_some_are_of_no_class(tmp_path):
    spec = parse_teacher("owl=transformers:m,prompts.cat=a cat|kitten, small,not=a toy cat|a lion")
    assert spec.prompts == {"cat": "a cat|kitten, small"}
    assert spec.negatives == ("a toy cat", "a lion")
    (tmp_path / "t.toml").write_text(
        '[teachers.owl]\nadapter = "transformers"\nmodel = "m"\n'
        'not = ["a toy cat", "a lion"]\nprompts = { cat = ["a cat", "kitten, small"] }\n'
    )
    assert load_teachers(tmp_path / "t.toml") == [spec]
    asked = spec.asking(["person", "cat"]).adapter_spec("cpu", 1)
    assert asked.prompts == {"person": None, "cat": "a cat|kitten, small"}
    assert asked.negatives == ("a toy cat", "a lion")
    (tmp_path / "t.toml").write_text(
        '[teachers.owl]\nadapter = "transformers"\nmodel = "m"\nnot = ["a|b"]\n'
    )
    with pytest.raises(UsageError, match=r"holds a \|, which stands"):
        load_teachers(tmp_path / "t.toml")
    with pytest.raises(UsageError, match="unknown key 'not'"):
        parse_teacher("rcnn=mmdet:m,weights=w,not=a toy")


def test_prompts_reach_the_adapter_with_the_data_sets_classes():
    spec = parse_teacher("owl=transformers:m,prompts.tv=a set").asking(["person", "tv"])
    assert spec.adapter_spec("cpu", 1).prompts == {"person": None, "tv": "a set"}
    with pytest.raises(UsageError, match=r"prompts\.tv: the data set has no class of that name"):
        spec.asking(["person", "tvs"])
    with pytest.raises(UsageError, match=r"unknown key 'prompts\.tv'"):
        parse_teacher("rcnn=mmdet:m,weights=w,prompts.tv=a set")


def test_a_file_beside_the_table_does_not_take_the_place_of_a_word(tmp_path: Path):
    """Values that equal names of files and folders, but mean something else."""
    for name in ("onnx", "yolox", "cpu", "random"):
        (tmp_path / name).mkdir()
    (tmp_path / "none").touch()
    (tmp_path / "teachers.toml").write_text(
        """
        [teachers.yolox]
        adapter = "onnx"
        model = "y.onnx"
        format = "yolox"
        device = "cpu"
        nms_iou = "none"
        [teachers.rcnn]
        adapter = "mmdet"
        model = "yolox"
        weights = "random"
        """
    )
    yolox, rcnn = load_teachers(tmp_path / "teachers.toml")
    assert yolox == parse_teacher("yolox=onnx:y.onnx,format=yolox,device=cpu,nms_iou=none")
    assert rcnn == parse_teacher("rcnn=mmdet:yolox,weights=random")


@pytest.mark.parametrize(
    "text",
    [
        "y=onnx:a,b.onnx,format=yolox,score_floor=0.01,nms_iou=none,scales=0.75,1,1.25,flip=true",
        "owl=transformers:m,prompts.tv=a set, switched on,prompts.st. bernard=dog,top_k=9",
        "owl=transformers:m,prompts.cat=a cat|kitten, small,not=a toy cat|a lion, sleeping",
        "y=onnx:y.onnx,map.motor bike=motorcycle,map.dog=none,batch_timeout=none,licence=MIT",
        "y=onnx:y.onnx,num_cpus=0.5,num_gpus=0,threads=2,load_timeout=30,mean=1/2/3,format=boxes",
    ],
)
def test_a_teacher_can_be_said_again(text):
    spec = parse_teacher(text)
    assert parse_teacher(as_argument(spec)) == spec


def test_what_cannot_be_said_on_a_command_line_is_refused():
    spec = replace(parse_teacher("y=onnx:y.onnx"), model="a,top_k=3.onnx")
    with pytest.raises(UsageError, match="holds what separates the keys"):
        as_argument(spec)
