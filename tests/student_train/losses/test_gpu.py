"""The losses on a GPU equal those on the CPU."""

from collections.abc import Callable

import pytest
import torch

from student_train.losses import Criterion
from student_train.models.output import Denoising, Prediction, StudentOutput
from student_train.models.targets import Targets

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def to_gpu(prediction: Prediction) -> Prediction:
    logits, boxes = prediction.logits.detach().cuda(), prediction.boxes.detach().cuda()
    return Prediction(logits.requires_grad_(), boxes.requires_grad_())


def test_gpu_equals_cpu(
    make_output: Callable[..., StudentOutput], make_targets: Callable[..., list[Targets]]
) -> None:
    truth = make_targets(4, 0)
    seen = make_targets(5, 0, seed=2, scored=True)
    teachers = {"a": list(seen), "b": [None, make_targets(3, seed=3, scored=True)[0]]}
    output = make_output(proposals="class", one_to_many=True, denoising=truth)
    assert output.denoising is not None
    assert output.proposals is not None
    assert output.one_to_many is not None
    known = output.denoising
    on_gpu = StudentOutput(
        [to_gpu(layer) for layer in output.layers],
        proposals=to_gpu(output.proposals),
        proposal_labels="class",
        one_to_many=[to_gpu(layer) for layer in output.one_to_many],
        denoising=Denoising(
            [to_gpu(layer) for layer in known.layers],
            known.image_index.cuda(),
            known.slot_index.cuda(),
            known.target_index.cuda(),
            known.n_groups,
            known.n_slots,
        ),
    )
    criterion = Criterion()
    here = criterion(output, criterion.supervise(truth, teachers))
    moved = {
        name: [None if each is None else each.to("cuda") for each in boxes]
        for name, boxes in teachers.items()
    }
    there = criterion(on_gpu, criterion.supervise([each.to("cuda") for each in truth], moved))
    assert there.names == here.names
    torch.testing.assert_close(there.values.cpu(), here.values, rtol=1e-5, atol=1e-6)
    here.total.backward()
    there.total.backward()
    for mine, theirs in zip(output.layers, on_gpu.layers, strict=True):
        torch.testing.assert_close(theirs.logits.grad.cpu(), mine.logits.grad, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(theirs.boxes.grad.cpu(), mine.boxes.grad, rtol=1e-4, atol=1e-6)
