"""The folder of Parquet units: schema, one part, writer, reader."""

from box_store.store.store import BoxStore

__all__ = ["BoxStore"]
