"""The adapters there are: ours, one line each, and those that other distributions bring.

A distribution brings one by an entry point, one line of its pyproject.toml:

    [project.entry-points."teach_detr.adapters"]
    mine = "my_package.my_adapter:ADAPTER"
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from box_store.errors import UsageError, nearest
from teacher_infer.adapters import mmdet, onnx, student, torchvision, transformers, ultralytics
from teacher_infer.adapters.info import AdapterInfo
from teacher_infer.adapters.protocol import MissingLibrary

GROUP = "teach_detr.adapters"

OURS = (
    onnx.ADAPTER,
    mmdet.ADAPTER,
    ultralytics.ADAPTER,
    torchvision.ADAPTER,
    transformers.ADAPTER,
    student.ADAPTER,
)


def adapter_help() -> tuple[AdapterInfo, ...]:
    """Every adapter: what it runs, an example, the extra that installs it, licence and keys."""
    return (*OURS, *(_loaded(name) for name in _others()))


def adapter_names() -> tuple[str, ...]:
    """The names that `AdapterSpec.adapter` may take."""
    return (*(info.name for info in OURS), *_others())


def adapter_info(name: str) -> AdapterInfo:
    """The adapter of that name.

    Raises:
        UsageError: there is none; names the nearest.
        MissingLibrary: another distribution brings it, and its module can't be used.
    """
    for info in OURS:
        if info.name == name:
            return info
    if name in _others():
        return _loaded(name)
    known = adapter_names()
    raise UsageError(
        f"unknown adapter {name!r}: expected one of {', '.join(known)}.{nearest(name, known)}"
    )


@cache
def _others() -> dict[str, EntryPoint]:
    """Adapters of other distributions by name; UsageError where two want one name."""
    found: dict[str, EntryPoint] = {}
    ours = {info.name for info in OURS}
    for point in entry_points(group=GROUP):
        other = found.get(point.name)
        if point.name in ours or (other is not None and other.value != point.value):
            raise UsageError(
                f"{_origin(point)} brings an adapter {point.name!r} ({point.value}), a name that "
                f"{_origin(other) if other else 'teach-detr'} has taken: uninstall one, or have it "
                "choose another name"
            )
        found[point.name] = point
    return found


@cache
def _loaded(name: str) -> AdapterInfo:
    point = _others()[name]
    try:
        info = point.load()
    except Exception as error:  # somebody else's module may raise anything when it is imported
        raise MissingLibrary(
            f"the adapter {name!r} of {_origin(point)} can't be imported from {point.value}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(info, AdapterInfo) or info.name != name:
        found = f"the adapter {info.name!r}" if isinstance(info, AdapterInfo) else repr(info)
        raise MissingLibrary(
            f"{point.value} of {_origin(point)} should be the AdapterInfo of {name!r}, got {found}"
        )
    return info


def _origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "a distribution"
