"""Teachers as people write them, on a command line or in a TOML file.

    yolox=onnx:yolox_nano.onnx,format=yolox,nms_iou=0.6,workers=2,map.motorbike=motorcycle
    NAME =ADAPTER:MODEL       ,key=value...

The keys of every teacher are in `KEYS`; the others belong to its adapter.
"""

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from box_store.errors import UsageError, nearest
from teacher_infer.adapters.protocol import NO_NMS, joined_texts, texts_of
from teacher_infer.adapters.registry import adapter_info
from teacher_infer.teachers.spec import TeacherSpec

# a comma separates keys only where `key=` follows, so paths and sizes may contain commas
_COMMA = re.compile(r",(?=\s*(?:(?:map|prompts)\.[^=,]+|[A-Za-z_][A-Za-z0-9_]*)\s*=)")
_MAP, _PROMPTS, _NOT = "map.", "prompts.", "not"
_DROP = ("none", "null")


@dataclass(frozen=True)
class Key:
    """A key of every teacher: how its text is read, and what the help says."""

    read: Callable[[str], Any]
    help: str


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def _nms_iou(text: str) -> float | Literal["none"] | None:
    if text.lower() in ("none", "off"):
        return NO_NMS
    return None if text.lower() in ("default", "") else _fraction(text)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _switch(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _scales(text: str) -> tuple[float, ...]:
    return tuple(sorted(float(part) for part in text.split(",")))


def _amount(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e6:
        raise ValueError
    return value


def _seconds(text: str) -> float:
    if text.lower() in ("none", "off"):
        return math.inf
    value = float(text)
    if not value > 0:
        raise ValueError
    return value


KEYS: dict[str, Key] = {
    "score_floor": Key(_fraction, "drop detections below this score (0..1)"),
    "nms_iou": Key(
        _nms_iou, "class-wise NMS at this IoU (0..1), none for no NMS, or default: the model's own"
    ),
    "top_k": Key(_count, "keep at most this many detections an image"),
    "flip": Key(_switch, "true: look at the mirrored image too"),
    "scales": Key(_scales, "how large objects appear in the views of an image, as 0.75,1,1.25"),
    "tile": Key(_count, "also look at tiles of so many pixels a side, as 1024"),
    "overlap": Key(_fraction, "part of its side that a tile shares with the next"),
    "whole": Key(_switch, "false: look at tiles alone, not at the whole image"),
    "merge": Key(str, "how boxes of several views become one set: nms, soft_nms or wbf"),
    "merge_iou": Key(_fraction, "overlap at which boxes of several views are one object"),
    "licence": Key(str, "licence of the weights, where the adapter cannot know it"),
    "batch_size": Key(_count, "images a call (1 or more)"),
    "device": Key(str, "cpu, cuda, cuda:0, or auto"),
    "workers": Key(_count, "processes that hold this teacher (1 or more)"),
    "num_cpus": Key(_amount, "CPUs that Ray reserves for each worker"),
    "num_gpus": Key(_amount, "GPUs that Ray reserves for each worker; 0.5 lets two share one"),
    "threads": Key(_count, "threads each worker computes with (1 or more)"),
    "batch_timeout": Key(
        _seconds, "seconds a batch may take before its worker is killed, or none (default: derived)"
    ),
    "load_timeout": Key(
        _seconds, "seconds that loading the model may take, or none (default: 600)"
    ),
}


def parse_teacher(text: str) -> TeacherSpec:
    """Read `NAME=ADAPTER:MODEL[,key=value...]`.

    Raises:
        UsageError: the text has another form, or a key or value is not understood.
    """
    form = f"expected NAME=ADAPTER:MODEL[,key=value...], got {text!r}"
    head = _COMMA.split(text)[0]
    name, equals, target = head.partition("=")
    adapter, colon, model = target.partition(":")
    if not (name.strip() and equals and colon and adapter.strip()):
        raise UsageError(form)
    values: dict[str, str] = {}
    for key, value in pairs_of(text):
        if key in values:
            raise UsageError(f"teacher {name}: {key} is given twice")
        values[key] = value
    return _build(name.strip(), adapter.strip(), model.strip(), values)


def pairs_of(text: str) -> list[tuple[str, str]]:
    """The keys behind `NAME=ADAPTER:MODEL`, with their values."""
    found = [pair.partition("=") for pair in _COMMA.split(text)[1:]]
    return [(key.strip(), value.strip()) for key, _, value in found]


def as_argument(spec: TeacherSpec) -> str:
    """A teacher as `parse_teacher` reads it.

    Raises:
        UsageError: a value can't be said on a command line: it holds what separates keys.
    """
    words = [f"{spec.name}={spec.adapter}:{spec.model}"]
    for key in KEYS:
        value = getattr(spec, key)
        if value != _DEFAULTS[key]:
            words.append(f"{key}={_text(value)}")
    words += [f"{key}={value}" for key, value in spec.options.items()]
    words += [f"{_MAP}{name}={value or 'none'}" for name, value in spec.class_map.items()]
    words += [f"{_PROMPTS}{name}={value}" for name, value in spec.prompts.items()]
    words += [f"{_NOT}={joined_texts(spec.negatives)}"] * bool(spec.negatives)
    text = ",".join(words)
    try:
        is_same = parse_teacher(text) == spec
    except UsageError:
        is_same = False
    if not is_same:
        raise UsageError(
            f"teacher {spec.name}: a name, model or value holds what separates the keys of a "
            f"teacher (a comma before something like key=): {text}. Rename the file or the class"
        )
    return text


def load_teachers(path: Path) -> list[TeacherSpec]:
    """Read teachers from a TOML file: one table `[teachers.NAME]` each, as `read_tables` takes it.

        [teachers.yolox]
        adapter = "onnx"
        model = "yolox_nano.onnx"        # files: beside this one, or from the current folder
        format = "yolox"
        score_floor = 0.05
        map = { motorbike = "motorcycle" }
        # of open-vocabulary models
        prompts = { cat = ["a cat", "a kitten"] }
        not = ["a toy cat"]

    Raises:
        UsageError: there is no such file, it is not TOML, or a table is not understood.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"no file {path}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} is not a TOML file that can be read: {error}") from error
    tables = document.get("teachers")
    strangers = sorted(set(document) - {"teachers"})
    if strangers or not isinstance(tables, dict) or not tables:
        found = f", got {', '.join(strangers)}" if strangers else ""
        raise UsageError(f"{path}: expected one table [teachers.NAME] a teacher{found}")
    try:
        return read_tables(tables, path.parent)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def read_tables(tables: Mapping[str, Any], folder: Path) -> list[TeacherSpec]:
    """Teachers from tables by name, as TOML has them: the values of `teachers`.

    A model, and a value of an adapter's key that is a file, may lie in `folder`; other values stay
    as they are, whatever files there are of that name.

    Raises:
        UsageError: a table is not understood.
    """
    return [_from_table(folder, name, table) for name, table in tables.items()]


def _from_table(folder: Path, name: str, table: Any) -> TeacherSpec:
    if not isinstance(table, Mapping):
        raise UsageError(f"teachers.{name} should be a table, got {table!r}")
    values: dict[str, str] = {}
    for key, value in table.items():
        if f"{key}." in (_MAP, _PROMPTS) and isinstance(value, Mapping):
            said = _text if f"{key}." == _MAP else _texts
            values |= {f"{key}.{name}": said(item) for name, item in value.items()}
        elif key == _NOT:
            values[key] = _texts(value)
        else:
            values[key] = _text(value)
    try:
        adapter, model = values.pop("adapter"), values.pop("model")
    except KeyError as error:
        raise UsageError(f"teachers.{name} lacks the key {error}") from error
    info = adapter_info(adapter)
    for key in info.file_options:
        if key in values and values[key] not in info.options[key].words:
            values[key] = _beside(folder, values[key])
    return _build(name, adapter, _beside(folder, model, info.model_is_folder), values)


def _beside(folder: Path, text: str, may_be_folder: bool = False) -> str:
    """The file (or folder) of that name in `folder`, if there is one."""
    other = folder / text
    there = other.is_file() or (may_be_folder and other.is_dir())
    return str(other) if text and there else text


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isinf(value):
        return "none"
    if isinstance(value, list | tuple):
        return ",".join(_text(item) for item in value)
    return str(value)


def _texts(value: Any) -> str:
    """Texts to ask for, given as one or as a list."""
    return joined_texts([*map(_text, value)]) if isinstance(value, list) else _text(value)


def _build(name: str, adapter: str, model: str, values: Mapping[str, str]) -> TeacherSpec:
    common: dict[str, Any] = {}
    options: dict[str, str] = {}
    class_map: dict[str, str] = {}
    prompts: dict[str, str] = {}
    negatives: tuple[str, ...] = ()
    info = adapter_info(adapter)
    known = [*info.options, *KEYS]
    for key, text in values.items():
        if key.startswith(_MAP):
            class_map[key.removeprefix(_MAP)] = "" if text.lower() in _DROP else text
        elif key.startswith(_PROMPTS) and info.open_vocabulary:
            prompts[key.removeprefix(_PROMPTS)] = text
        elif key == _NOT and info.open_vocabulary:
            negatives = texts_of(text)
        elif key in KEYS:
            common[key] = _read(name, key, text)
        elif key in known:
            options[key] = text
        else:
            raise UsageError(
                f"teacher {name}: unknown key {key!r}.{nearest(key, known)} The keys of "
                f"{adapter}: {', '.join(known)}, and map.CLASS=CATEGORY"
                f"{', prompts.CLASS=TEXT|TEXT and not=TEXT|TEXT' if info.open_vocabulary else ''}"
            )
    return TeacherSpec(
        name=name,
        adapter=adapter,
        model=model,
        options=options,
        class_map=class_map,
        prompts=prompts,
        negatives=negatives,
        **common,
    )


def _read(name: str, key: str, text: str) -> Any:
    try:
        return KEYS[key].read(text)
    except (ValueError, KeyError) as error:
        raise UsageError(f"teacher {name}: {key} is {KEYS[key].help}, got {text!r}") from error


_DEFAULTS = {one.name: one.default for one in fields(TeacherSpec)}
