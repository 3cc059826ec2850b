"""Errors of detr_kernels.

    KernelError
    ├── ArgumentError (ValueError)       a tensor or option that the operator cannot take
    └── BackendError (RuntimeError)      the backend asked for cannot run here

The package stands alone (torch and triton only), so the tree does too.
"""


class KernelError(Exception):
    """Base of what this package raises on purpose."""

    exit_code = 1


class ArgumentError(KernelError, ValueError):
    """An argument is off: the message names it, what was expected and what came."""


class BackendError(KernelError, RuntimeError):
    """The backend asked for cannot run on this machine or these tensors: the message says why."""
