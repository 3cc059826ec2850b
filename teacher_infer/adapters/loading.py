"""What several adapters need while they load: libraries, files, devices, sizes."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

from box_store.errors import UsageError
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec, MissingLibrary

RANDOM = "random"
# every worker builds the same model from it, so that runs with random weights agree
_RANDOM_SEED = 0


def import_library(name: str, extra: str) -> ModuleType:
    """The framework's module, or MissingLibrary with the command that installs what is missing."""
    try:
        with quiet():
            return import_module(name)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise MissingLibrary(
                f'the library {name} isn\'t installed: pip install "teach-detr[{extra}]"'
            ) from error
        if "libGL" in str(error) or "libgthread" in str(error):
            raise MissingLibrary(
                f"{name} needs OpenCV, which misses system libraries ({error}): apt-get install "
                "libgl1 libglib2.0-0 (libglib2.0-0t64 from Debian 13 and Ubuntu 24.04 on)"
            ) from error
        raise MissingLibrary(
            f"{name} is installed but can't be imported ({error}); a set of versions that work "
            f'together: pip install -c constraints.txt "teach-detr[{extra}]"'
        ) from error


def existing_file(path: str | Path, what: str) -> Path:
    """The path, or AdapterError where there is no such file."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise AdapterError(f"{what} not found: expected a file at {path}")
    return path


def torch_device(name: str) -> str:
    """The device to give to torch; 'auto' is a GPU where there is one."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise UsageError(f"device={name}: expected cpu, cuda, cuda:N or auto") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise AdapterError(
            f"device={name} was asked for, but torch {torch.__version__} sees no CUDA device: "
            "use device=cpu, or device=auto"
        )
    return name


@contextmanager
def quiet() -> Iterator[None]:
    """Hide a framework's warnings about its own code: its user can't do anything about them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def seeded() -> Iterator[None]:
    """Random weights drawn inside are the same every time; the caller's generator is left alone."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_SEED)
        yield


def image_size(spec: AdapterSpec) -> tuple[int, int] | None:
    """The option image_size, S or WxH, as (width, height); None where it wasn't given."""
    text = spec.option("image_size")
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"image_size={text}: expected pixels as S or WxH, as 640 or 1333x800")
    return int(parts[0]), int(parts[-1])


def limit_opencv_threads(spec: AdapterSpec) -> None:
    """For frameworks that preprocess with OpenCV, whose thread pool is its own."""
    if spec.threads is not None:
        import_module("cv2").setNumThreads(spec.threads)


def weights_option(spec: AdapterSpec, hint: str = "") -> str:
    """The required option weights=, or UsageError."""
    value = spec.option("weights")
    if not value:
        raise UsageError(
            f"{spec.adapter}:{spec.model} needs weights=FILE{hint}; weights=random builds a model "
            "that has learnt nothing, for tests"
        )
    return value
