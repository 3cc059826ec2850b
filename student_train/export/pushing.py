"""An exported folder, to the hub: by huggingface-hub, and only when told so twice."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from box_store.errors import UsageError
from student_train.errors import ExportError
from student_train.export.card import CARD
from student_train.models.hub.folder import SAFE

# what an export writes: nothing else that lies in the folder is sent
FILES = ("config.json", "preprocessor_config.json", SAFE, CARD)
_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


@dataclass(frozen=True)
class Pushed:
    """What was, or would be, uploaded."""

    name: str
    files: dict[str, int]
    """bytes by name"""
    url: str | None
    """of the commit; None where nothing was sent"""


def check_name(name: str) -> str:
    """Raises UsageError for what is no ORG/NAME."""
    if _NAME.fullmatch(name) is None:
        raise UsageError(f"--push is ORG/NAME, got {name!r}")
    return name


def push_folder(folder: Path, name: str, *, upload: bool, private: bool) -> Pushed:
    """Say what of `folder` would be uploaded to the repository ORG/NAME, or with `upload` do it;
    the repository is made where there is none.

    Raises ExportError: huggingface-hub is missing, there is no way to the hub, or it refuses.
    """
    files = {each: (folder / each).stat().st_size for each in FILES if (folder / each).is_file()}
    if not upload:
        return Pushed(name, files, None)
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    except ImportError:
        raise ExportError(
            "uploading needs huggingface-hub: pip install huggingface-hub, or upload "
            f"{', '.join(files)} of {folder} by hand"
        ) from None
    api = HfApi()
    # of whichever library it speaks HTTP with
    transport: type[Exception] = HfHubHTTPError.__mro__[1]
    try:
        api.create_repo(name, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=list(files),
            commit_message="Upload a student of teach-detr",
        )
    except OfflineModeIsEnabled as error:
        raise ExportError(
            f"{name} was not uploaded: HF_HUB_OFFLINE is set. {folder} holds what to upload"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        advice = "; `hf auth login` first, or set HF_TOKEN" if status in (401, 403) else ""
        raise ExportError(
            f"the hub refused {name}: {_first_line(error)}{advice}. {folder} holds what to upload"
        ) from error
    except (OSError, ValueError, transport) as error:
        raise ExportError(
            f"{name} was not uploaded: {_first_line(error)}. {folder} holds what to upload"
        ) from error
    return Pushed(name, files, str(done.commit_url))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), repr(error))
