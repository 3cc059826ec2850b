"""A student compiled for a GPU: one graph, and no copy from the host at deformable attention."""

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.filterwarnings("default")  # the compiler's own warnings are not ours
def test_a_compiled_student_has_the_same_gradients(tiny, padded) -> None:
    student = tiny(decoder_layers=2).train().cuda()
    batch = [t.cuda() for t in padded([(61, 83), (50, 70)])]
    watched = [p for n, p in student.named_parameters() if "sampling_offsets" in n]

    def gradients(run):
        output = run(*batch)
        loss = sum(layer.logits.square().mean() + layer.boxes.sum() for layer in output.layers)
        return torch.autograd.grad(loss, watched)

    torch._dynamo.reset()
    found = gradients(torch.compile(student, fullgraph=True))
    for a, b in zip(found, gradients(student), strict=True):
        assert (a - b).norm() <= 2e-2 * b.norm()
