"""torch.compile for the parts of a student whose shapes follow from the image's alone."""

from torch import nn

# denoising and query selection stay as they are: their shapes depend on the boxes of a batch
_TRANSFORMER = ("neck", "encoder", "decoder")


def compile_parts(model: nn.Module, what: str, backend: str = "inductor") -> tuple[str, ...]:
    """Compile parts of a student in place; their names. State and parameters keep their names.

    what: off | backbone | model (backbone and transformer). Parts that a family lacks are left out.
    Every new shape is compiled anew until PyTorch takes it for dynamic: `data.pad_to` keeps them
    few.
    """
    wanted = {"off": (), "backbone": ("backbone",), "model": ("backbone", *_TRANSFORMER)}[what]
    found = tuple(name for name in wanted if isinstance(getattr(model, name, None), nn.Module))
    for name in found:
        model.get_submodule(name).compile(backend=backend)
    return found
