"""Every refusal names the argument, what was expected and what came."""

import pytest
import torch

from detr_kernels import ArgumentError, KernelError, deform_attn

B, S, H, D, Q, L, P = 2, 6, 3, 4, 5, 2, 2
LEVELS = ((2, 2), (1, 2))


def arguments(**changes):
    given = {
        "value": torch.zeros(B, S, H, D),
        "spatial_shapes": LEVELS,
        "sampling_locations": torch.zeros(B, Q, H, L, P, 2),
        "attention_weights": torch.zeros(B, Q, H, L, P),
    }
    return given | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"value": torch.zeros(B, S, H * D)},
            r"value: expected \[B, S, H, D\], got shape \[2, 6, 12\]",
        ),
        ({"value": torch.zeros(B, S, H, D).int()}, r"value: expected float16.*got torch.int32"),
        ({"value": [[1.0]]}, r"value: expected a tensor \[B, S, H, D\], got list"),
        ({"value": torch.zeros(B, S, H, 0)}, r"at least one.*D=0"),
        (
            {"sampling_locations": torch.zeros(B, Q, H, L, P)},
            r"sampling_locations: expected \[B, Q, H, L, P, 2\], got shape \[2, 5, 3, 2, 2\]",
        ),
        (
            {"sampling_locations": torch.zeros(B, Q, H + 1, L, P, 2)},
            r"sampling_locations: .*B=2 and H=3 as in value, got \[2, 5, 4, 2, 2, 2\]",
        ),
        (
            {"sampling_locations": torch.zeros(B, Q, H, L, P, 3)},
            r"sampling_locations: .*got \[2, 5, 3, 2, 2, 3\]",
        ),
        (
            {"attention_weights": torch.zeros(B, Q, H, L, P + 1)},
            r"attention_weights: expected \[2, 5, 3, 2, 2\].*got \[2, 5, 3, 2, 3\]",
        ),
        (
            {"attention_weights": torch.zeros(B, Q, H, L, P, device="meta")},
            r"attention_weights: expected on cpu as value is, got meta",
        ),
        ({"spatial_shapes": ((2, 2),)}, r"spatial_shapes: expected 2 \(h, w\) pairs.*\[\[2, 2\]\]"),
        ({"spatial_shapes": ((2, 2, 1, 1), (1, 2, 1, 1))}, r"spatial_shapes: expected 2 \(h, w\) "),
        ({"spatial_shapes": ((2, 2, 0), (1, 2))}, r"spatial_shapes: expected 2 \(h, w\) pairs"),
        ({"spatial_shapes": ((2, 2, 0), (1, 2, 5))}, r"spatial_shapes: .*`start` on.*7 in all"),
        ({"spatial_shapes": ((2, 2, 0), (1, 2, -1))}, r"spatial_shapes: .*`start` on"),
        ({"spatial_shapes": torch.tensor([(2, 2, 3), (1, 2, 0)])}, r"spatial_shapes: .*7 in all"),
        ({"spatial_shapes": ((2, 2), (2, 2))}, r"spatial_shapes: .*S = 6 of value.*8 in all"),
        ({"spatial_shapes": ((-2, -2), (1, 2))}, r"spatial_shapes: expected positive"),
        ({"spatial_shapes": torch.tensor(LEVELS).float()}, r"spatial_shapes: expected integers"),
        ({"spatial_shapes": torch.tensor([2, 2])}, r"spatial_shapes: expected integers \[2, 2\]"),
        ({"spatial_shapes": torch.tensor(LEVELS) * 2}, r"spatial_shapes: .*24 in all"),
        ({"backend": "cuda"}, r"backend: expected one of auto, triton, numba, torch, got 'cuda'"),
    ],
)
def test_refusals(changes, message):
    with pytest.raises(ArgumentError, match=message):
        deform_attn(**arguments(**changes))


def test_errors_are_value_errors_of_this_package():
    assert issubclass(ArgumentError, ValueError)
    assert issubclass(ArgumentError, KernelError)


def test_these_arguments_are_fine():
    assert deform_attn(**arguments()).shape == (B, Q, H * D)
