"""Text and JSON values as the types that a configuration's annotations ask for."""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

from box_store.errors import nearest

_TABLES = (dict, Mapping)


def is_table(annotation: Any) -> bool:
    """Whether a type holds values by name."""
    return typing.get_origin(annotation) in _TABLES


def is_record(annotation: Any) -> bool:
    """Whether a type is a dataclass: a table whose names are known."""
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def entry_of(entry: str, value: Any, table: Mapping[str, Any], annotation: Any) -> dict[str, Any]:
    """What `KEY.entry=value` changes in a table: an entry, or one field of an entry that is a
    dataclass. Names of entries may hold dots, those of fields do not.
    """
    kind = typing.get_args(annotation)[1]
    name, dot, field = entry.rpartition(".")
    if not is_record(kind):
        return {entry: value}
    if not dot:
        return {entry: value}
    before = table.get(name, {})
    if is_record(type(before)):
        before = {each.name: getattr(before, each.name) for each in dataclasses.fields(before)}
    return {name: {**before, field: value}}


def describe(annotation: Any) -> str:
    """A type in words that a person who types `key=value` understands."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (Union, types.UnionType):
        return " or ".join("none" if a is type(None) else describe(a) for a in args)
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return f"a comma-separated list, each {describe(args[0])}"
        return f"{len(args)} values separated by commas"
    if is_table(annotation):
        return "a table of name and " + describe(args[1])
    if is_record(annotation):
        return "a table of " + ", ".join(field.name for field in dataclasses.fields(annotation))
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    names[Path] = "a path"
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def convert(value: Any, annotation: Any) -> Any:
    """`value`, text or typed, as the annotated type.

    Raises:
        ValueError: the value does not fit; the message says what was expected.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, args, annotation)
    if origin is Literal:
        for choice in args:
            if value == choice or (isinstance(value, str) and value == str(choice)):
                return choice
        hint = nearest(str(value), [str(choice) for choice in args])
        raise ValueError(f"expected {describe(annotation)}, got {value!r}.{hint}")
    if origin is tuple:
        return _convert_tuple(value, args, annotation)
    if is_table(annotation):
        if not isinstance(value, Mapping):
            raise ValueError(
                f"expected {describe(annotation)}, got {value!r}; write key.NAME=VALUE"
            )
        return {str(name): convert(item, args[1]) for name, item in value.items()}
    if is_record(annotation):
        return _convert_record(value, annotation)
    return _convert_scalar(value, annotation)


def _convert_record(value: Any, annotation: Any) -> Any:
    if isinstance(value, annotation):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"expected {describe(annotation)}, got {value!r}")
    hints = typing.get_type_hints(annotation)
    for name in value:
        if name not in hints:
            raise ValueError(
                f"expected {describe(annotation)}, got {name!r}.{nearest(str(name), list(hints))}"
            )
    return annotation(**{name: convert(item, hints[name]) for name, item in value.items()})


def _convert_union(value: Any, args: tuple[Any, ...], annotation: Any) -> Any:
    if type(None) in args and (
        value is None or (isinstance(value, str) and value.lower() in ("none", "null"))
    ):
        return None
    for choice in args:
        if choice is type(None):
            continue
        try:
            return convert(value, choice)
        except ValueError:
            continue
    raise ValueError(f"expected {describe(annotation)}, got {value!r}")


def _convert_tuple(value: Any, args: tuple[Any, ...], annotation: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        text = value.strip().strip("[]()")
        items: list[Any] = [item.strip() for item in text.split(",") if item.strip()]
    elif isinstance(value, Sequence):
        items = list(value)
    else:
        items = [value]
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(convert(item, args[0]) for item in items)
    if len(items) != len(args):
        raise ValueError(f"expected {describe(annotation)}, got {len(items)} of them")
    return tuple(convert(item, kind) for item, kind in zip(items, args, strict=True))


def _convert_scalar(value: Any, annotation: Any) -> Any:
    complaint = f"expected {describe(annotation)}, got {value!r}"
    if annotation is bool:
        if isinstance(value, bool):
            return value
        word = str(value).lower()
        if word in ("true", "1", "yes", "on"):
            return True
        if word in ("false", "0", "no", "off"):
            return False
        raise ValueError(complaint)
    if isinstance(value, bool):
        raise ValueError(complaint)
    if annotation is int:
        try:
            number = float(value)
            if number != int(number):
                raise ValueError(complaint)
            return (
                int(value)
                if isinstance(value, str) and value.lstrip("+-").isdigit()
                else int(number)
            )
        except (TypeError, ValueError, OverflowError):
            raise ValueError(complaint) from None
    if annotation is float:
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ValueError(complaint) from None
    if annotation is Path:
        return Path(str(value)).expanduser()
    if annotation is str:
        return str(value)
    raise ValueError(complaint)
