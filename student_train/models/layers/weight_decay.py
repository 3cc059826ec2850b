"""Which parameters weight decay leaves alone."""

from __future__ import annotations

from collections.abc import Container

from torch import nn


def undecayed(backbone: nn.Module, tables: Container[str]) -> set[str]:
    """The biases and norms of a student's `backbone`, and those of its `tables`; names in the
    student.

    As the training scripts of YOLOS and ViDT choose them (`main.py`, `build_optimizer`).
    """
    return {
        f"backbone.{name}"
        for name, parameter in backbone.named_parameters()
        if parameter.ndim == 1 or name in tables
    }
