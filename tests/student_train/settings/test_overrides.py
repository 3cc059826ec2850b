"""Settings as dotted keys: conversion, merging, origins, and every problem in one error."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from box_store.errors import UsageError
from student_train.errors import ConfigError
from student_train.settings.convert import convert
from student_train.settings.origin import ARGUMENT, Kind, Origin
from student_train.settings.overrides import (
    Layer,
    as_text,
    flatten,
    merge,
    parse_assignments,
    read_toml,
    settings,
    to_plain,
)


@dataclass(frozen=True)
class Inner:
    """Inner."""

    rate: float = 0.1
    """how fast"""
    sides: tuple[int, ...] = (1, 2)
    pair: tuple[int, float] = (1, 2.0)
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rate > 1:
            raise UsageError(f"rate is at most 1, got {self.rate}")


@dataclass(frozen=True)
class Outer:
    """Outer."""

    inner: Inner = field(default_factory=Inner)
    mode: Literal["fast", "slow"] = "fast"
    limit: int | None = None
    folder: Path | None = None
    on: bool = False


def merged(**values: object):
    return merge(Outer(), [Layer(ARGUMENT, {k.replace("__", "."): v for k, v in values.items()})])


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        ("3", int, 3),
        ("1e3", int, 1000),
        ("1e-4", float, 1e-4),
        (2, float, 2.0),
        ("yes", bool, True),
        ("false", bool, False),
        ("none", int | None, None),
        ("7", int | None, 7),
        ("a,b", tuple[str, ...], ("a", "b")),
        ("[1, 2]", tuple[int, ...], (1, 2)),
        ("", tuple[int, ...], ()),
        ("4", tuple[int, ...], (4,)),
        ([3, 4.5], tuple[int, float], (3, 4.5)),
        ("slow", Literal["fast", "slow"], "slow"),
        ("x/y", Path | None, Path("x/y")),
        ({"a": "1"}, Mapping[str, float], {"a": 1.0}),
    ],
)
def test_text_becomes_the_annotated_type(value: object, annotation: object, expected: object):
    result = convert(value, annotation)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("value", "annotation", "words"),
    [
        ("x", int, "a whole number"),
        ("1.5", int, "a whole number"),
        ("nan.", float, "a number"),
        ("maybe", bool, "true or false"),
        (True, int, "a whole number"),
        ("fsat", Literal["fast", "slow"], "Did you mean 'fast'?"),
        ("1,2,3", tuple[int, int], "2 values"),
        ("x", int | None, "a whole number or none"),
        ("x", Mapping[str, float], "key.NAME=VALUE"),
    ],
)
def test_a_value_that_does_not_fit_says_what_does(value: object, annotation: object, words: str):
    with pytest.raises(ValueError, match=words):
        convert(value, annotation)


def test_later_layers_win_and_origins_are_kept():
    preset = Layer(Origin(Kind.PRESET, "p"), {"inner.rate": 0.5, "mode": "slow"})
    result = merge(Outer(), [preset, Layer(ARGUMENT, {"inner.rate": "0.25"})])
    assert result.config == Outer(inner=Inner(rate=0.25), mode="slow")
    assert result.origins == {"inner.rate": ARGUMENT, "mode": Origin(Kind.PRESET, "p")}


def test_an_entry_of_a_table_can_be_set_by_itself():
    result = merge(
        Outer(),
        [
            Layer(Origin(Kind.FILE, "x.toml"), {"inner.weights": {"a": 1.0, "b": 2.0}}),
            Layer(ARGUMENT, {"inner.weights.b": "3"}),
        ],
    )
    assert result.config.inner.weights == {"a": 1.0, "b": 3.0}


def test_all_problems_come_at_once():
    with pytest.raises(ConfigError) as caught:
        merge(
            Outer(),
            [Layer(ARGUMENT, {"rate": "1", "moed": "fast", "limit": "x", "inner.rate": "2"})],
            lambda config: ["as a whole: no"],
        )
    text = "\n".join(caught.value.problems)
    assert "unknown setting 'rate' (argument). Did you mean 'inner.rate'?" in text
    assert "Did you mean 'mode'?" in text
    assert "limit (argument): expected a whole number or none, got 'x'" in text
    assert "inner.rate is at most 1, got 2.0" in text
    assert "as a whole: no" in text
    assert caught.value.exit_code == 2


def test_assignments_need_an_equals_sign():
    assert parse_assignments(["a=1", "--b=x=y", "a=2"]) == {"a": "2", "b": "x=y"}
    with pytest.raises(ConfigError, match="'fast' is not KEY=VALUE"):
        parse_assignments(["fast"])


def test_the_string_under_a_field_is_its_help():
    assert settings(Outer())["inner.rate"].help == "how fast"
    assert settings(Outer())["mode"].help == ""


def test_nested_tables_flatten_down_to_leaves():
    table = {"inner": {"rate": 0.2, "weights": {"a": 1}}, "mode": "slow"}
    expected = {"inner.rate": 0.2, "inner.weights": {"a": 1}, "mode": "slow"}
    assert flatten(Outer(), table) == expected


def test_a_configuration_survives_plain_and_text_forms():
    config = Outer(Inner(0.3, (5,), (1, 2.5), {"a": 1.0}), "slow", 3, Path("x"), True)
    assert (
        merge(
            Outer(), [Layer(Origin(Kind.RECORD, "json"), flatten(Outer(), to_plain(config)))]
        ).config
        == config
    )
    texts = {
        key: as_text(setting.value)
        for key, setting in settings(config).items()
        if key != "inner.weights"
    }
    texts["inner.weights.a"] = "1"
    assert merge(Outer(), [Layer(ARGUMENT, texts)]).config == config


def test_a_toml_file_that_is_none_is_named(tmp_path: Path):
    bad = tmp_path / "bad.toml"
    bad.write_text("a = = 1")
    with pytest.raises(ConfigError, match=r"bad\.toml cannot be read as TOML"):
        read_toml(bad)
    with pytest.raises(ConfigError, match="no configuration file"):
        read_toml(tmp_path / "none.toml")
