"""The command `list`: which detectors can be teachers, and how they are named."""

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from teacher_infer.adapters.info import AdapterInfo
from teacher_infer.adapters.registry import adapter_help, adapter_info
from teacher_infer.commands.terminal import AsJson, print_json, say, stdout
from teacher_infer.teachers.parsing import KEYS, parse_teacher
from teacher_infer.teachers.spec import TeacherSpec


def list_adapters(
    adapter: Annotated[str | None, typer.Argument(help="Only this one")] = None,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="Also installed versions, how models are named, files, TOML"
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The adapters: what each can run, what it needs, its licence, an example, and all keys.

    Example: teacher-infer list transformers --verbose
    """
    infos = [adapter_info(adapter)] if adapter else list(adapter_help())
    if as_json:
        print_json([describe(info) for info in infos])
    else:
        console = stdout()
        for line in lines(infos, verbose):
            say(line, console)


def describe(info: AdapterInfo) -> dict[str, Any]:
    """An adapter for `--json`; `installed` maps libraries to versions, None for one that lacks."""
    return {
        "adapter": info.name,
        "summary": info.summary,
        "installed": info.installed(),
        "install": _install(info),
        "licence": info.licence,
        "models": list(info.models),
        "files": info.reads,
        "example": info.example,
        "toml": toml(info.example),
        "options": {
            key: {"help": option.help, "default": option.default}
            for key, option in info.options.items()
        },
        "open_vocabulary": info.open_vocabulary,
    }


def lines(infos: Sequence[AdapterInfo], verbose: bool) -> list[str]:
    """Adapters with an example each, and the keys that all of them share."""
    text: list[str] = []
    for info in infos:
        text += _adapter(info, verbose)
    text.append("keys of every teacher:")
    text += [_key(key, entry.help, _default(key)) for key, entry in KEYS.items()]
    text.append(_key("map.CLASS", "the data set's name or id for this teacher class, or none"))
    if any(info.open_vocabulary for info in infos):
        words = "words that an open-vocabulary model is asked for in place of this class name"
        text.append(_key("prompts.CLASS", f"{words}; several between bars: a cat|kitten"))
        text.append(_key("not", "words that it is asked for too, and whose boxes are left out"))
    return text


def _adapter(info: AdapterInfo, verbose: bool) -> list[str]:
    text = [f"{info.name}: {info.summary}"]
    if verbose:
        text.append(f"    installed {_installed_text(info)}")
    text.append(f"    install   {_install(info)}")
    text.append(f"    licence   {info.licence}")
    if verbose:
        text += [f"    model     {one}" for one in info.models]
        text.append(f"    files     {info.reads}")
    text.append(f"    example   --teacher {info.example}")
    if verbose:
        text += [f"              {line}" for line in toml(info.example).splitlines()]
    text += [_key(key, option.help, option.default) for key, option in info.options.items()]
    return text


def toml(example: str) -> str:
    """A teacher as `--teacher` takes it -> the same as a table of `--teachers`."""
    spec = parse_teacher(example)
    values: dict[str, str] = {"adapter": spec.adapter, "model": spec.model, **spec.options}
    rows = [
        f"{key} = {value if value.isdecimal() else json.dumps(value)}"
        for key, value in values.items()
    ]
    return "\n".join([f"[teachers.{spec.name}]", *rows])


def _install(info: AdapterInfo) -> str:
    return f"pip install 'teach-detr[{info.extra}]'" if info.extra else "nothing more"


def _installed_text(info: AdapterInfo) -> str:
    found = info.installed()
    missing = [name for name, number in found.items() if number is None]
    if missing:
        return f"no: {', '.join(missing)} missing"
    return ", ".join(f"{name} {number}" for name, number in found.items())


def _default(key: str) -> str:
    value = getattr(TeacherSpec, key, None)
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(f"{one:g}" for one in value)
    return str(value).lower()


def _key(key: str, text: str, default: str = "") -> str:
    """A key with its help; a default in brackets, `required` too."""
    told = f" ({default})" if default == "required" else f" (default: {default})" if default else ""
    return f"    {key + '=':<15}{text}{told}"
