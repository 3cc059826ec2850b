"""Settings as dotted keys: reading, converting and merging them into nested frozen dataclasses.

A configuration is a tree of frozen dataclasses. Every leaf has a dotted key (`optim.lr`), a type
(its annotation) and a help text (the string literal under the field). Layers of values, weakest
first, are merged into one configuration, and the origin of every value that a layer set is kept.
All problems of all layers are reported in one error.
"""

import ast
import dataclasses
import inspect
import itertools
import json
import textwrap
import tomllib
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from box_store.errors import TeachDetrError, nearest
from student_train.errors import ConfigError
from student_train.settings.convert import convert, entry_of, is_table
from student_train.settings.origin import Origin

T = TypeVar("T")
_OPERATIONAL = "how a run is carried out"
Operational = Annotated[T, _OPERATIONAL]
"""Type of a field that says how a run is carried out, not what it computes: a resumed run may
change it."""


@dataclass(frozen=True)
class Setting:
    """One leaf of a configuration: its dotted key, annotation, current value and help text."""

    key: str
    annotation: Any
    value: Any
    help: str
    is_operational: bool = False


@dataclass(frozen=True)
class Layer:
    """Values by dotted key, and where they come from.

    A value is either text as typed on a command line, or already typed (from TOML, JSON or Python).
    """

    origin: Origin
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Resolved(Generic[T]):
    """A configuration with the origin of every value that did not stay at its default."""

    config: T
    origins: dict[str, Origin]


def setting_name(field: dataclasses.Field[Any]) -> str:
    """What a field is called as a setting: `as_`, a reserved word otherwise, is `as`."""
    return field.name.removesuffix("_")


@cache
def field_help(cls: type) -> dict[str, str]:
    """The string literal under each field of a dataclass, by field name, joined to one line."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        if not dataclasses.is_dataclass(base):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError):
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for here, after in itertools.pairwise(body):
            if (
                isinstance(here, ast.AnnAssign)
                and isinstance(here.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                docs[here.target.id] = " ".join(after.value.value.split())
    return docs


def settings(config: Any, prefix: str = "") -> dict[str, Setting]:
    """Every leaf below a dataclass instance, by dotted key, in order of declaration."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    docs = field_help(type(config))
    found: dict[str, Setting] = {}
    for field in dataclasses.fields(config):
        key = prefix + setting_name(field)
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            found |= settings(value, key + ".")
        else:
            annotation, operational = _without_mark(hints[field.name])
            found[key] = Setting(key, annotation, value, docs.get(field.name, ""), operational)
    return found


def _without_mark(annotation: Any) -> tuple[Any, bool]:
    """A field's type, and whether it is marked as operational."""
    if _OPERATIONAL in getattr(annotation, "__metadata__", ()):
        return annotation.__origin__, True
    return annotation, False


def parse_assignments(texts: Sequence[str]) -> dict[str, str]:
    """`["optim.lr=1e-4", ...]` as a table; later ones win.

    Raises:
        ConfigError: an item has no `=`.
    """
    problems = [f"{text!r} is not KEY=VALUE" for text in texts if "=" not in text.lstrip("=")]
    if problems:
        raise ConfigError(problems)
    pairs = (text.split("=", 1) for text in texts)
    return {key.strip().lstrip("-"): value.strip() for key, value in pairs}


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ConfigError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError([f"no configuration file at {path}"]) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError([f"{path} cannot be read as TOML: {error}"]) from None


def flatten(config: Any, table: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables to dotted keys, down to the leaves of `config` (which may be tables too)."""
    leaves = set(settings(config))

    def walk(prefix: str, node: Mapping[str, Any]) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for name, value in node.items():
            key = prefix + name
            if isinstance(value, Mapping) and key not in leaves:
                flat |= walk(key + ".", value)
            else:
                flat[key] = value
        return flat

    return walk("", table)


def merge(
    config: T, layers: Sequence[Layer], check: Callable[[T], list[str]] | None = None
) -> Resolved[T]:
    """`config` with the values of `layers`, weakest first, and the origin of each.

    A key below a table leaf sets one entry of it: `loss.teacher.coefficients.yolox=0.5`. `check`
    names what is wrong with a configuration as a whole.

    Raises:
        ConfigError: all unknown keys (with the nearest known one), all values that do not fit, and
            what `check` found.
    """
    known = settings(config)
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    problems: list[str] = []
    for layer in layers:
        for key, value in layer.values.items():
            leaf, entry = _find_leaf(key, known)
            if leaf is None:
                problems.append(
                    f"unknown setting {key!r} ({layer.origin}).{_nearest_key(key, known)}"
                )
                continue
            setting = known[leaf]
            if entry is not None:
                table = values.get(leaf, setting.value)
                value = {**table, **entry_of(entry, value, table, setting.annotation)}
            try:
                values[leaf] = convert(value, setting.annotation)
                origins[leaf] = layer.origin
            except ValueError as error:
                problems.append(f"{key} ({layer.origin}): {error}")
    merged = _replace(config, values, problems)
    if check is not None:
        problems += check(merged)
    if problems:
        raise ConfigError(problems)
    return Resolved(merged, origins)


def _find_leaf(key: str, known: Mapping[str, Setting]) -> tuple[str | None, str | None]:
    """The leaf that a key names, and the entry within it where the leaf is a table."""
    if key in known:
        return key, None
    for leaf, setting in known.items():
        if is_table(setting.annotation) and key.startswith(leaf + "."):
            return leaf, key[len(leaf) + 1 :]
    return None, None


def _nearest_key(key: str, known: Mapping[str, Setting]) -> str:
    # `lr` is meant as `optim.lr` more often than as a misspelling of another whole key
    last = key.rsplit(".", 1)[-1]
    ends = [name for name in known if name.rsplit(".", 1)[-1] == last]
    if ends:
        return f" Did you mean {ends[0]!r}?"
    return nearest(key, known) or " `student-train presets NAME` lists the settings."


def _replace(config: T, values: Mapping[str, Any], problems: list[str], prefix: str = "") -> T:
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        key = prefix + setting_name(field)
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            if any(name.startswith(key + ".") for name in values):
                changes[field.name] = _replace(value, values, problems, key + ".")
        elif key in values:
            changes[field.name] = values[key]
    if not changes:
        return config
    try:
        return dataclasses.replace(config, **changes)  # type: ignore[type-var]
    except TeachDetrError as error:
        # a dataclass that checks itself in __post_init__
        sentences = error.problems if isinstance(error, ConfigError) else (str(error),)
        problems += [prefix + sentence for sentence in sentences]
        return config


def to_plain(value: Any) -> Any:
    """A configuration as JSON-able tables, lists and scalars; `merge` accepts every leaf back."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            setting_name(field): to_plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): to_plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def as_text(value: Any) -> str:
    """A leaf as it would be typed after `key=`."""
    plain = to_plain(value)
    if isinstance(plain, list):
        return ",".join(as_text(item) for item in plain)
    if plain is None:
        return "none"
    if isinstance(plain, bool):
        return "true" if plain else "false"
    return json.dumps(plain) if isinstance(plain, dict) else str(plain)
