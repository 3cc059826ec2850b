"""The files that a config of mmengine is made of: itself, and what it inherits from, at any depth.

Read without running them, by mmengine's rules (`Config.fromfile`): `_base_` names files beside the
config or, as `mmdet::...`, in another package's wheel; newer configs import theirs in a
`with read_base():`.
"""

import ast
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from teacher_infer.adapters.protocol import AdapterError

_BASE = "_base_"
_FOLDER = re.compile(r"\{\{\s*fileDirname\s*\}\}")


def config_files(path: Path) -> list[Path]:
    """The config and every file that it inherits from, each once.

    Raises:
        AdapterError: one of them isn't there, or is no config.
    """
    found: list[Path] = []
    waiting = [path]
    while waiting:
        file = waiting.pop(0)
        if file.resolve() in [one.resolve() for one in found]:
            continue
        if not file.is_file():
            raise AdapterError(f"{path}: this config inherits from {file}, which is not there")
        found.append(file)
        waiting += _bases(file)
    return found


def _bases(path: Path) -> Iterator[Path]:
    try:
        text = path.read_text(encoding="utf-8")
        text = _FOLDER.sub(str(path.parent).replace("\\", "/"), text)
        if path.suffix == ".py":
            tree = ast.parse(text)
            yield from _imported(path, tree)
            names = _assigned(tree)
        else:
            names = _listed(path.suffix, text)
    except (OSError, ValueError, SyntaxError) as error:
        raise AdapterError(f"{path}: can't be read as a config: {error}") from error
    for name in names:
        yield _place(path, name)


def _assigned(tree: ast.Module) -> list[str]:
    """Texts in the value of `_base_`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and _is_base(node.targets[0]):
            parts = [part for part in ast.walk(node.value) if isinstance(part, ast.Constant)]
            return [part.value for part in parts if isinstance(part.value, str)]
    return []


def _is_base(target: ast.expr) -> bool:
    return isinstance(target, ast.Name) and target.id == _BASE


def _imported(path: Path, tree: ast.Module) -> Iterator[Path]:
    """Modules imported in `with read_base():`."""
    blocks = [node for node in tree.body if isinstance(node, ast.With)]
    for node in [line for block in blocks for line in block.body]:
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        parts = node.module.split(".")
        folder = path.parent
        if node.level:
            for _ in range(node.level - 1):
                folder = folder.parent
        else:
            folder, parts = _package(parts[0], path), parts[1:]
        yield folder.joinpath(*parts).with_suffix(".py")


def _listed(suffix: str, text: str) -> list[str]:
    """`_base_` of a config in JSON or YAML."""
    if suffix == ".json":
        document: Any = json.loads(text)
    else:
        import yaml

        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from error
    names = document.get(_BASE, []) if isinstance(document, dict) else []
    return [names] if isinstance(names, str) else [str(name) for name in names]


def _place(path: Path, name: str) -> Path:
    package, colons, inner = name.partition("::")
    if colons:
        return _package(package, path) / ".mim" / "configs" / inner
    return path.parent / name


def _package(name: str, path: Path) -> Path:
    package = find_spec(name)
    if package is None or package.origin is None:
        raise AdapterError(f"{path} inherits from the package {name}, which is not installed")
    return Path(package.origin).parent
