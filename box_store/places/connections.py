"""Connections to the file systems of URLs: pyarrow's own, or any of fsspec's if it is installed."""

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pyarrow import fs

from box_store.errors import UsageError

WITH_HOST = frozenset({"hdfs", "viewfs"})
"""schemes whose URLs begin with a host; others begin with a bucket, which is part of the path"""
_S3_OPTIONS = ("endpoint_override", "region", "scheme")
_ATTEMPTS, _CONNECT_S, _REQUEST_S = 3, 10.0, 60.0


@dataclass(frozen=True)
class Place:
    """A file system as a URL names it: hashable, sendable, and without a connection."""

    scheme: str
    authority: str
    query: str


@lru_cache(maxsize=32)
def connect(place: Place, bucket: str, process: int) -> Any:
    """The file system of a URL, as pyarrow has it.

    bucket: the first part of the path, which is also a host where the scheme has none. process:
    keeps those of other processes apart, as a connection must not cross a fork.

    Raises:
        UsageError: options that the scheme does not know, or a library that is not installed.
    """
    if place.scheme == "s3":
        return _connect_s3(place, bucket)
    query = f"?{place.query}" if place.query else ""
    if place.scheme in ("gs", "gcs", "hdfs", "viewfs", "abfs", "abfss"):
        where = place.authority if place.scheme in WITH_HOST else bucket
        return fs.FileSystem.from_uri(f"{place.scheme}://{where}/{query}")[0]
    try:
        import fsspec
    except ImportError as error:
        raise UsageError(
            f"{place.scheme}:// needs fsspec, which is not installed: pip install fsspec, or use "
            "s3://, gs:// or hdfs://"
        ) from error
    try:
        made = fsspec.filesystem(place.scheme, **dict(parse_qsl(place.query)))
    except (ValueError, ImportError) as error:
        raise UsageError(f"{place.scheme}:// cannot be used: {error}") from error
    return fs.PyFileSystem(fs.FSSpecHandler(made))


def _connect_s3(place: Place, bucket: str) -> Any:
    options = dict(parse_qsl(place.query))
    unknown = sorted(options.keys() - set(_S3_OPTIONS))
    if unknown:
        raise UsageError(
            f"s3:// takes {', '.join(_S3_OPTIONS)} behind its '?', got {', '.join(unknown)}"
        )
    endpoint = options.get("endpoint_override") or os.environ.get("AWS_ENDPOINT_URL", "")
    if "://" in endpoint:
        parts = urlsplit(endpoint)
        options["scheme"], endpoint = options.get("scheme", parts.scheme), parts.netloc
    region = options.get("region") or os.environ.get("AWS_REGION")
    region = region or os.environ.get("AWS_DEFAULT_REGION")
    if not region:
        region = "us-east-1" if endpoint else fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        endpoint_override=endpoint or None,
        scheme=options.get("scheme", "https"),
        region=region,
        connect_timeout=_CONNECT_S,
        request_timeout=_REQUEST_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    )
