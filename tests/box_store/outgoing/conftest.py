"""The data set that forms are tested with."""

from tests.box_store.forms.conftest import build, own_cache

__all__ = ["build", "own_cache"]
