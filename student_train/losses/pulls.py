"""Whether a teacher pulls predictions where the annotations pull them.

The gradient of each source's loss with respect to the logits of all decoder layers is taken before
it reaches the student: a teacher that finds what is annotated asks for much the same change of
scores, one whose boxes lie elsewhere for another, and one that outweighs the annotations for the
opposite. The cosine between the two gradients (as in PCGrad, Yu et al., NeurIPS 2020, there between
tasks and with respect to parameters) costs a backward pass through the loss alone.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from student_train.losses.criterion import Losses
from student_train.models.output import StudentOutput

_TRUTH, _TEACHER = "truth", "teacher:"
_SUMS = ("product", "truth", "own")


def pulls(output: StudentOutput, losses: Losses) -> dict[str, Tensor]:
    """For every teacher, as NAME/product, NAME/truth, NAME/own: the product of its gradient and
    the annotations', and the square of each (0-d, detached). Sums of them over steps and ranks are
    what `agreements` divides. Empty without teachers or without the annotations' own loss.
    """
    sources = [name.split("/")[0] for name in losses.names]
    teachers = [each for each in dict.fromkeys(sources) if each.startswith(_TEACHER)]
    if _TRUTH not in sources or not teachers:
        return {}
    logits = [layer.logits for layer in output.layers]

    def gradient(source: str) -> Tensor:
        own = [place for place, name in enumerate(sources) if name == source]
        found = torch.autograd.grad(
            losses.parts_with_gradient[own].sum(), logits, retain_graph=True, allow_unused=True
        )
        given = [
            torch.zeros_like(at) if g is None else g for g, at in zip(found, logits, strict=True)
        ]
        return torch.cat([g.flatten() for g in given]).double()

    truth = gradient(_TRUTH)
    sums: dict[str, Tensor] = {}
    for teacher in teachers:
        own = gradient(teacher)
        values = (own @ truth, truth @ truth, own @ own)
        name = teacher.removeprefix(_TEACHER)
        sums |= {f"{name}/{key}": value for key, value in zip(_SUMS, values, strict=True)}
    return sums


def agreements(sums: Mapping[str, float]) -> dict[str, float]:
    """Cosine of each teacher's gradient and the annotations', -1..1, from summed `pulls`; a teacher
    without any box in these steps is left out.
    """
    found = {}
    for name in dict.fromkeys(key.rpartition("/")[0] for key in sums):
        product, truth, own = (sums[f"{name}/{key}"] for key in _SUMS)
        if truth > 0 and own > 0:
            found[name] = product / (truth * own) ** 0.5
    return found
