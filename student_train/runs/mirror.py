"""A run at a URL: trained in a folder of this machine, its working copy, and copied as it grows.

What a reader needs comes before what points at it: records and best weights first, then the newest
states, then `states.json`, and last go the states that it no longer lists. Killed at any moment,
the URL holds a list that is true, and states that can be resumed from, on any machine.

Whether a working copy that is there already may go on is told by a mark in it: it remembers which
list it last saw at the URL. Where another list stands there by now, another machine went on with
the run, and the copy is fetched anew.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence, Set

from box_store.places import files
from box_store.places.locations import Location, RemoteNotFound, RemotePath, cache_folder
from student_train.runs.states import LIST, SavedState, SavedStates, list_of

_CHECKPOINTS = "checkpoints"
_STATES = f"{_CHECKPOINTS}/{LIST}"
# what a run goes on from, beside its states; the rest of the folder is only ever added to
_NEEDED = ("config.json", "metrics.jsonl", "wandb.json", f"{_CHECKPOINTS}/best.safetensors")
_ATTEMPTS = 3


class Mirror:
    """The working copy of one run at a URL, and the ways between the two.

    check: raises where the run is another machine's by now; asked before anything there changes.
    """

    def __init__(self, remote: RemotePath, check: Callable[[], None] = lambda: None) -> None:
        self.remote = remote
        self._check = check
        digest = hashlib.sha256(str(remote).encode()).hexdigest()[:12]
        self.local = cache_folder() / "runs" / f"{remote.name}-{digest}"
        self._mark = self.local / ".mirror.json"
        # `states.json` as it stands at the URL; empty where there is none
        self._listed = b""
        # what lies at the URL: size and time of writing of the file here that it is equal to, by
        # name; nothing where there is no such file
        self._sent: dict[str, list[int]] = {}

    def open(self, fresh: bool) -> None:
        """Make the working copy what the run goes on from, by the one process that will `push`.

        A copy that is ahead of the URL, as its last push failed, is pushed. `fresh`: the run begins
        anew, nothing is fetched, and the first push removes what lies there.

        Raises:
            RemoteError: the URL does not answer. OSError: this machine's disk is full.
        """
        files.make_folder(self.local)
        self._listed = _content(self.remote / _STATES)
        is_ahead = not fresh and self._goes_on()
        if not is_ahead:
            self._replace(fetch=not fresh)
        cut = len(self.remote.key) + 1
        at_url = [*self.remote.iterdir(), *(self.remote / _CHECKPOINTS).iterdir()]
        self._sent = {path.key[cut:]: [] for path in at_url} | self._sent
        if is_ahead:
            self.push()
        else:
            self._remember()

    def follow(self, fresh: bool) -> None:
        """The working copy for the other processes, after `open`: the first of a machine fetches.

        Raises:
            RemoteError, OSError: as `open`.
        """
        files.make_folder(self.local)
        if fresh:
            return
        with files.locked(self.local):
            self._listed = _content(self.remote / _STATES)
            if self._listed != _content(self.local / _STATES) or not self._has_its_config():
                self._replace(fetch=True)
                self._remember()

    def push(self) -> None:
        """Copy what is new here to the URL, and remove states there that are gone here.

        Raises:
            RemoteError: the URL does not answer. What stands there stays usable, and what was
                copied is not copied again. OSError: the working copy cannot be read. And what
                `check` raises.
        """
        self._check()
        states = SavedStates(self.local / _CHECKPOINTS)
        entries = states.entries()
        if not entries:
            # its files must not stand beside the states of a former run
            self._put_list([])
        for name in self._names():
            self._send(name)
        sent = [entry for entry in entries if self._send(f"{_CHECKPOINTS}/{entry.file}")]
        if sent[:1] != entries[:1] and states.entries() != entries:
            # the newest has given way to a newer one meanwhile
            self.push()
            return
        self._put_list(sent)
        self._remove_gone({f"{_CHECKPOINTS}/{entry.file}" for entry in sent})
        self._remember()

    def step_at_url(self) -> int:
        """The step of the newest state at the URL, 0 where there is none."""
        return int(json.loads(self._listed)["states"][0]["step"]) if self._listed else 0

    def _goes_on(self) -> bool:
        """Whether the working copy continues exactly what stands at the URL."""
        try:
            mark = json.loads(self._mark.read_bytes())
            self._sent = dict(mark["sent"])
            return _digest(self._listed) in mark["lists"] and self._has_its_config()
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return False

    def _has_its_config(self) -> bool:
        at_url = _content(self.remote / "config.json")
        return not at_url or at_url == _content(self.local / "config.json")

    def _replace(self, fetch: bool) -> None:
        """Empty the working copy, and fetch what stands at the URL."""
        for path in self.local.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != ".lock":
                path.unlink()
        self._sent = {}
        files.make_folder(self.local / _CHECKPOINTS)
        if not fetch:
            return
        self._fetch_states()
        for name in _NEEDED:
            if (self.remote / name).is_file():
                self._get(name)

    def _fetch_states(self) -> None:
        for attempt in range(_ATTEMPTS):
            self._listed = _content(self.remote / _STATES)
            if not self._listed:
                return
            try:
                for entry in SavedStates(self.remote / _CHECKPOINTS).entries():
                    self._get(f"{_CHECKPOINTS}/{entry.file}")
            except RemoteNotFound:
                # whoever writes there went on between the list and the state
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                break
        with files.replacing(self.local / _STATES) as file:
            file.write(self._listed)

    def _names(self) -> Iterator[str]:
        """All files but the states, hidden ones and links."""
        for path in sorted(self.local.rglob("*")):
            name = path.relative_to(self.local).as_posix()
            hidden = any(part.startswith(".") for part in name.split("/"))
            if not hidden and path.is_file() and not path.is_symlink() and not _is_state(name):
                yield name

    def _get(self, name: str) -> None:
        path = self.local / name
        (self.remote / name).download(path)
        self._sent[name] = _about(path.stat())

    def _send(self, name: str) -> bool:
        """Copy a file, unless it lies at the URL as it is; False where it is gone."""
        try:
            file = (self.local / name).open("rb")
        except FileNotFoundError:
            return False
        with file:
            about = _about(os.fstat(file.fileno()))
            if self._sent.get(name) != about:
                target = self.remote / name
                target.parent.make_folder()
                target.upload(file)
                self._sent[name] = about
        return True

    def _put_list(self, entries: Sequence[SavedState]) -> None:
        content = list_of(entries) if entries else b""
        if content == self._listed:
            return
        # sending states may have taken a while
        self._check()
        # killed in between, either of the two is what this copy continues
        self._remember(content)
        if content:
            (self.remote / _STATES).put(content)
        else:
            (self.remote / _STATES).unlink(missing_ok=True)
        self._listed = content

    def _remove_gone(self, states: Set[str]) -> None:
        """Remove at the URL what a run goes on from, and this one has not."""
        for name in list(self._sent):
            if name == _STATES or name in states:
                continue
            is_its_own = name in _NEEDED or name.startswith(f"{_CHECKPOINTS}/")
            if is_its_own and (_is_state(name) or not (self.local / name).exists()):
                (self.remote / name).unlink(missing_ok=True)
                del self._sent[name]

    def _remember(self, *also: bytes) -> None:
        """Leave the mark."""
        lists = [_digest(content) for content in (self._listed, *also)]
        with files.replacing(self._mark) as file:
            file.write(json.dumps({"lists": lists, "sent": self._sent}).encode())


def _is_state(name: str) -> bool:
    return name == _STATES or (name.startswith(f"{_CHECKPOINTS}/step-") and name.endswith(".pt"))


def _content(path: Location) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _about(stat: os.stat_result) -> list[int]:
    return [stat.st_size, stat.st_mtime_ns]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
