"""Counting what makes the host wait for a device."""

from collections import Counter
from typing import Any

from torch.overrides import TorchFunctionMode


class Waits(TorchFunctionMode):
    """Counts the calls that do, by name, in the thread that queues the work.

    The matching's copy is awaited by a thread of its own, so it is not among them. Works without a
    GPU: what would wait for one is the same code.
    """

    NAMES = (
        *("item", "tolist", "cpu", "numpy", "nonzero", "unique", "masked_select", "equal"),
        *("__bool__", "__int__", "__float__", "__index__", "is_nonzero", "allclose"),
    )

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in self.NAMES:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))
