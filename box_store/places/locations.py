"""Where data lies: a local `Path`, or a `RemotePath` below a URL, with the same few methods.

`location` turns what a user wrote into one of the two. Remote file systems are pyarrow's
(`s3://`, `gs://`, `hdfs://`) or, where fsspec is installed, any of its protocols through pyarrow's
`FSSpecHandler`. Everything that a library wants as a local file (Parquet, Arrow, JSON) is fetched
once into the local cache by `staged`.
"""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import unquote

from pyarrow import fs

from box_store.errors import StoreError, UsageError
from box_store.places.connections import WITH_HOST, Place, connect
from box_store.places.durable import make_local_folder, replacing_local

# Path turns s3://bucket into s3:/bucket; a single letter is a Windows drive
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)
# what these list is what was put as a whole: no folders, no renames, no half-written files
_OBJECT_STORES = frozenset({"s3", "gcs"})
_CHUNK = 1 << 20


class RemoteError(StoreError, OSError):
    """A remote place that does not answer, or refuses. `strerror` is the sentence.

    Also an OSError, so that whoever handles a failing disk handles a failing network.
    """

    def __str__(self) -> str:
        return str(self.strerror)


class RemoteNotFound(RemoteError, FileNotFoundError):
    """There is no such object."""


@dataclass(frozen=True)
class RemotePath:
    """A path below a URL, with those methods of `pathlib.Path` that a store needs.

    Holds no connection: cheap to make, to pickle and to hand to another process. Every method that
    touches the network raises RemoteError, in one sentence.
    """

    place: Place
    key: str
    """without slashes at its ends; the bucket is its first part"""

    def __truediv__(self, name: str) -> "RemotePath":
        return RemotePath(self.place, f"{self.key}/{name}".strip("/"))

    def __str__(self) -> str:
        """The URL, as `location` reads it back."""
        query = f"?{self.place.query}" if self.place.query else ""
        authority = f"{self.place.authority}/" if self.place.authority else ""
        return f"{self.place.scheme}://{authority}{self.key}{query}"

    def __lt__(self, other: "RemotePath") -> bool:
        return self.key < other.key

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self.key).name

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return PurePosixPath(self.key).stem

    @property
    def suffix(self) -> str:
        """The suffix of the last part."""
        return PurePosixPath(self.key).suffix

    @property
    def parent(self) -> "RemotePath":
        """Without the last part."""
        return RemotePath(self.place, self.key.rpartition("/")[0])

    def with_name(self, name: str) -> "RemotePath":
        """Another one beside it."""
        return self.parent / name

    def resolve(self) -> "RemotePath":
        """Itself: there are no links."""
        return self

    def exists(self) -> bool:
        """Whether there is an object, or anything below."""
        return self._info().type != fs.FileType.NotFound

    def is_file(self) -> bool:
        """Whether there is an object."""
        return self._info().type == fs.FileType.File

    def is_dir(self) -> bool:
        """Whether there is anything below."""
        return self._info().type == fs.FileType.Directory

    def size(self) -> int:
        """Bytes of the object."""
        return int(self._info().size or 0)

    def modified_ns(self) -> int:
        """When it was written, by the clock of the store; nanoseconds."""
        info = self._info()
        if info.type == fs.FileType.NotFound:
            raise self._missing()
        return int(info.mtime_ns or 0)

    def iterdir(self) -> Iterator["RemotePath"]:
        """What lies directly below, none where there is nothing."""
        with self._sentences("list"):
            found = self._filesystem.get_file_info(
                fs.FileSelector(self.key, allow_not_found=True, recursive=False)
            )
        for info in found:
            yield RemotePath(self.place, info.path.strip("/"))

    def glob(self, pattern: str) -> Iterator["RemotePath"]:
        """What lies directly below under a name that fits the pattern."""
        return (path for path in self.iterdir() if fnmatchcase(path.name, pattern))

    def read_bytes(self) -> bytes:
        """The whole object."""
        with self._sentences("read"), self._filesystem.open_input_file(self.key) as file:
            return file.read()

    def open(self, mode: str = "rb", encoding: str | None = None) -> BinaryIO:
        """The whole object as a file in memory; to read, in bytes."""
        if mode != "rb" or encoding is not None:
            raise ValueError(f"remote objects are opened as bytes, not {mode!r}")
        return BytesIO(self.read_bytes())

    def make_folder(self) -> None:
        """Make the folder, where the store knows folders."""
        if self._filesystem.type_name not in _OBJECT_STORES:
            with self._sentences("make"):
                self._filesystem.create_dir(self.key, recursive=True)

    def put(self, data: bytes) -> None:
        """Write an object that nobody sees before it is whole, in place of any former one."""
        self.upload(BytesIO(data))

    def upload(self, file: BinaryIO) -> None:
        """`put` of what is left to read of an open file, in pieces: of any size."""
        if self._filesystem.type_name in _OBJECT_STORES:
            self._write(file)
            return
        beside = self.with_name(f".{self.name}.{os.getpid()}.tmp")
        beside._write(file)
        with self._sentences("write"):
            self._filesystem.move(beside.key, self.key)

    def _write(self, file: BinaryIO) -> None:
        with self._sentences("write"), self._filesystem.open_output_stream(self.key) as out:
            shutil.copyfileobj(file, out, _CHUNK)

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object."""
        if missing_ok and not self.is_file():
            return
        with self._sentences("delete"):
            self._filesystem.delete_file(self.key)

    def fetch(self, cache: Path) -> Path:
        """A local copy of exactly this version of the object: by its tag, else size and time."""
        with self._sentences("read"), self._filesystem.open_input_file(self.key) as file:
            # only object stores have tags; elsewhere a version is its size and time
            described = getattr(file, "metadata", dict)() or {"time": self.modified_ns()}
            identity = repr((str(self), file.size(), sorted(described.items()))).encode()
            copy = cache / f"{hashlib.sha256(identity).hexdigest()}{self.suffix}"
            if not copy.exists():
                _copy(file, copy)
        return copy

    def download(self, target: Path) -> None:
        """Copy the object into a local file, which gets its name when it is whole."""
        with self._sentences("read"), self._filesystem.open_input_file(self.key) as file:
            _copy(file, target)

    def _info(self) -> Any:
        with self._sentences("reach"):
            return self._filesystem.get_file_info(self.key)

    @property
    def _filesystem(self) -> Any:
        return connect(self.place, self.key.partition("/")[0], os.getpid())

    def _missing(self) -> RemoteNotFound:
        return RemoteNotFound(errno.ENOENT, f"there is no {self}")

    @contextmanager
    def _sentences(self, what: str) -> Iterator[None]:
        try:
            yield
        except RemoteError:
            raise
        except FileNotFoundError as error:
            raise self._missing() from error
        except (OSError, ValueError, NotImplementedError) as error:
            if getattr(error, "filename", None) is not None:
                # a local file: the cache
                raise
            text = " ".join(str(error).split())
            raise RemoteError(
                errno.EIO,
                f"cannot {what} {self}: {text}. See that the server runs, that the bucket exists "
                "and that the credentials are right, and run the same command again",
            ) from error


Location = Path | RemotePath


def location(path: Path | RemotePath | str) -> Location:
    """What a user wrote as a place: a local path made absolute, or the object of a URL.

    Absolute, because workers may run in other folders. A Path may hold a URL, whose second slash it
    has swallowed. Raises UsageError for a URL that cannot be used.
    """
    if isinstance(path, RemotePath):
        return path
    match = _URL.match(str(path))
    if not match:
        return Path(path).absolute()
    scheme = match[1].lower()
    if scheme == "file":
        return Path("/" + unquote(match[2].lstrip("/")))
    # not urlsplit's path: a name may hold a '#'
    rest, _, query = match[2].partition("?")
    authority, _, key = rest.partition("/") if scheme in WITH_HOST else ("", "", rest)
    if "@" in rest.partition("/")[0]:
        raise UsageError(
            f"a URL with credentials ends up in records and logs: leave them out of {scheme}://, "
            "and give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or as your cloud's "
            "configuration does"
        )
    if not key.strip("/"):
        raise UsageError(
            f"{scheme}://{key} names no bucket or folder: write {scheme}://BUCKET/PATH"
        )
    return RemotePath(Place(scheme, authority, query), key.strip("/"))


def as_typed(path: Path | RemotePath) -> Location:
    """As `location`, but a local path stays as it was typed: for messages."""
    found = location(path)
    return found if isinstance(found, RemotePath) or _URL.match(str(path)) else Path(str(path))


def is_remote(path: Path | RemotePath | str) -> bool:
    """Whether a place is a URL of anything but this machine's files."""
    return isinstance(location(path), RemotePath)


def local_only(path: Path, what: str) -> Path:
    """`path`, unless it is a URL. Raises UsageError, saying that `what` must be local."""
    if is_remote(path):
        raise UsageError(f"{location(path)} is a URL: {what} lies on a local or mounted path")
    return path


def relative(path: Location, root: Location) -> str:
    """The path from `root`, above it, to `path`."""
    whole, above = (
        PurePosixPath(place.key) if isinstance(place, RemotePath) else place
        for place in (path, root)
    )
    return str(whole.relative_to(above))


def size_of(place: Location) -> int:
    """Bytes of a file or object."""
    return place.size() if isinstance(place, RemotePath) else place.stat().st_size


def staged(place: Location) -> Path:
    """A local file with the content: the path itself, or a copy of the object in the cache.

    An object is fetched once a version. Raises RemoteError; OSError if the cache cannot be written.
    """
    return place.fetch(cache_folder() / "objects") if isinstance(place, RemotePath) else place


def cache_folder() -> Path:
    """The local cache: TEACH_DETR_CACHE, or a folder of the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TEACH_DETR_CACHE") or Path(home) / "teach-detr")


def _copy(file: Any, target: Path) -> None:
    make_local_folder(target.parent)
    with replacing_local(target) as out:
        shutil.copyfileobj(file, out, _CHUNK)
