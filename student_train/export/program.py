"""A student as a program of plain operations: traced once, for batches and sizes of any number."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from student_train.errors import ExportError
from student_train.export.attention import Sampler, exportable
from student_train.models.backbones.dinov2 import WindowedEmbedding
from student_train.models.backbones.swin import WindowBlock
from student_train.models.postprocess import best

Dynamic = Literal["size", "batch", "none"]
"""what may differ from the traced example: batch and image size, the batch alone, nothing"""

DYNAMIC: tuple[Dynamic, ...] = ("size", "batch", "none")

WINDOWED = (
    "Swin cuts its maps into windows, and the tracer does not come to an end with sizes that it "
    "does not know; put smaller images into the upper left corner and mark the rest in the mask"
)

RESIZED = (
    "DINOv2's table of positions is scaled with antialiasing, for which exporters have no "
    "operation, so it is kept for one size; export another file for another size"
)


class Detector(nn.Module):
    """Images to detections, without lists or dataclasses at its borders."""

    def __init__(self, model: nn.Module, top_k: int) -> None:
        super().__init__()
        self.model = model
        self.top_k = top_k

    def forward(self, images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores [B, K], logit indices [B, K], corner boxes [B, K, 4] in 0..1 of each image.

        `images` [B, 3, H, W]: RGB, normalised, each in the upper left corner, zero elsewhere;
        `mask` [B, H, W]: True on padding.
        """
        return best(self.model(images, mask), self.top_k)


@dataclass(frozen=True)
class Example:
    """A batch to trace or check with."""

    images: Tensor
    mask: Tensor

    @classmethod
    def make(cls, batch: int, height: int, width: int, seed: int = 0) -> "Example":
        """Random images, the last of which fills three quarters of the canvas only."""
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(batch, 3, height, width, generator=generator)
        mask = torch.zeros(batch, height, width, dtype=torch.bool)
        mask[-1, height * 3 // 4 :] = True
        mask[-1, :, width * 3 // 4 :] = True
        return cls(images.masked_fill(mask[:, None], 0.0), mask)

    def describe(self) -> str:
        """`2 x 3 x 480 x 640`."""
        return " x ".join(map(str, self.images.shape))


@dataclass(frozen=True)
class Program:
    """A traced student, what may vary, and why nothing more does ("" where everything may)."""

    traced: torch.export.ExportedProgram
    dynamic: Dynamic
    note: str


def why_of_one_size(model: nn.Module) -> str:
    """Why files of a student have one height and width; empty where they may be free."""
    for part in model.modules():
        if isinstance(part, WindowBlock):
            return WINDOWED
        if isinstance(part, WindowedEmbedding):
            return RESIZED
    return ""


def trace(
    model: nn.Module,
    top_k: int,
    example: Example,
    dynamic: Dynamic,
    sampler: Sampler = "gather",
) -> Program:
    """Trace a student on the CPU, as freely as asked, or less freely where the model forbids it.

    Raises:
        ExportError: it cannot be traced at all.
    """
    plain, note = exportable(model, sampler), ""
    if dynamic == "size" and (why := why_of_one_size(model)):
        dynamic, note = "batch", why
    for part in plain.modules():
        if isinstance(part, WindowedEmbedding):
            part.fix(*example.images.shape[2:])
    detector = Detector(plain, top_k).eval()
    for kind in DYNAMIC[DYNAMIC.index(dynamic) :]:
        try:
            with quiet(), torch.no_grad():
                traced = torch.export.export(
                    detector,
                    (example.images, example.mask),
                    dynamic_shapes=_free_dimensions(kind),
                    strict=False,
                )
        # torch.export has no one error: unsupported operations, violated constraints, guards
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            note = note or reason
            continue
        return Program(traced, kind, note)
    raise ExportError(f"the student cannot be traced: {note}")


def _free_dimensions(dynamic: Dynamic) -> tuple[dict[int, object], dict[int, object]] | None:
    if dynamic == "none":
        return None
    batch = torch.export.Dim("batch", min=1, max=4096)
    if dynamic == "batch":
        return {0: batch}, {0: batch}
    # with names, every divisibility that the trace meets would have to be declared
    free = torch.export.Dim.AUTO
    return {0: free, 2: free, 3: free}, {0: free, 1: free, 2: free}


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' own remarks (deprecations inside torch, folding) off the screen."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
