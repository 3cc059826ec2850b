"""A student under torch.compile: one graph around deformable attention, the same gradients."""

import pytest
import torch
from torch._dynamo.backends.debugging import aot_eager

SIZES = [(61, 83), (50, 70)]


@pytest.mark.slow
def test_the_graph_does_not_break_at_deformable_attention(tiny, padded) -> None:
    student = tiny(decoder_layers=2).train()
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return aot_eager(graph, inputs)

    def gradients(run):
        output = run(*padded(SIZES))
        loss = sum(layer.logits.square().mean() + layer.boxes.sum() for layer in output.layers)
        attention = {n: p for n, p in student.named_parameters() if "sampling_offsets" in n}
        return torch.autograd.grad(loss, list(attention.values()))

    torch._dynamo.reset()
    # without denoising, whose random boxes depend on the ground truth's number
    found = gradients(torch.compile(student, fullgraph=True, backend=keep))
    called = [str(n.target) for graph in graphs for n in graph.graph.nodes]
    assert called.count("detr_kernels.deform_attn_fused") == 3  # 1 encoder and 2 decoder layers
    for a, b in zip(found, gradients(student), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
