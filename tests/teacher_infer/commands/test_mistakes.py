"""Requests that make no sense end in a sentence."""

import json

import pytest

from box_store.store.store import BoxStore


@pytest.mark.parametrize(
    ("keys", "code", "says"),
    [
        (",scoer_floor=0.1", 2, "Did you mean 'score_floor'"),
        (",fromat=boxes", 2, "Did you mean 'format'"),
        (",resize=letterbx", 2, "Did you mean 'letterbox'"),
        (",map.persn=person", 2, "Did you mean 'person'"),
        (",map.unicorn=kit", 2, "Did you mean 'kite'"),
    ],
)
def test_keys_and_names_that_do_not_exist(cli, make_folder, request_of, keys, code, says):
    result = cli("run", "--local", *request_of(make_folder(2), keys))
    assert result[0] == code
    assert says in result[2]


def test_an_adapter_or_file_that_does_not_exist(cli, make_folder, store, detector):
    data = make_folder(2)
    base = ["run", "--local", "--data", data, "--split", "train", "--store", store]
    code, _, err = cli(*base, "--teacher", "y=onx:y.onnx")
    assert code == 2
    assert "Did you mean 'onnx'" in err
    code, _, err = cli(*base, "--teacher", "y=onnx:nowhere.onnx,format=boxes")
    assert code == 1
    assert "nowhere.onnx" in err
    code, _, err = cli(*base)
    assert code == 2
    assert "no teacher" in err
    assert not store.exists()
    assert cli("list", "onx")[0] == 2


def test_options_of_the_command_that_do_not_exist(cli):
    assert cli("run", "--stroe", "x")[0] == 2
    assert cli("rnu")[0] == 2
    assert cli("run", "--local", "--address", "auto", "--store", "x")[0] == 2


def test_a_data_set_that_is_not_there_or_empty(cli, make_folder, request_of, tmp_path, store):
    code, _, err = cli("run", "--local", *request_of(tmp_path / "nowhere"))
    assert (code, "nowhere" in err) == (1, True)
    code, _, err = cli("run", "--local", *request_of(make_folder(0)))
    assert (code, "data set is empty" in err) == (1, True)
    assert not store.exists()


def test_another_configuration_under_the_same_name(cli, make_folder, request_of, store):
    data = make_folder(2)
    cli("run", "--local", *request_of(data))
    before = BoxStore.open(store).record("tiny").fingerprint
    for command in (["run", "--local"], ["plan"]):
        code, _, err = cli(*command, *request_of(data, ",top_k=5"))
        assert code == 1
        assert before[:12] in err
        assert "asked for" in err
        assert "options.top_k: 100 in the store, 5 asked for" in err
    assert BoxStore.open(store).record("tiny").fingerprint == before


def test_a_store_that_is_none_or_newer_or_of_other_categories(
    cli, make_folder, request_of, store, edit_annotations
):
    code, _, err = cli("status", store)
    assert (code, "no box store" in err) == (1, True)
    data = make_folder(2)
    cli("run", "--local", *request_of(data))
    edit_annotations(
        data, "train", lambda document: document["categories"].append({"id": 9, "name": "dog"})
    )
    code, _, err = cli("run", "--local", *request_of(data))
    assert (code, "another category table" in err) == (1, True)
    document = json.loads((store / "store.json").read_text())
    document["format_version"] = "99.0"
    (store / "store.json").write_text(json.dumps(document))
    code, _, err = cli("status", store)
    assert code == 1
    assert "99.0" in err


def test_an_export_needs_to_know_whose_boxes(cli, store):
    code, _, err = cli("export", "--store", store, "--out", "x.json")
    assert (code, "--fused" in err) == (2, True)
    code, _, err = cli("export", "--store", store, "--teacher", "a", "--fused", "--out", "x.json")
    assert code == 2
