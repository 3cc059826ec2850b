"""Weights that a file cuts or turns each time it runs, cut and turned once."""

from __future__ import annotations

from typing import Any

import numpy as np

_FOLDED = ("Split", "Transpose", "Reshape", "Squeeze", "Unsqueeze")


def fold_weights(model: Any) -> int:
    """Replace, in place, nodes that only rearrange weights by what they make; how many went.

    An attention's projections are one matrix that the traced graph splits: what quantises weights
    finds none at the product.
    """
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    graph = model.graph
    known = {one.name: one for one in graph.initializer}
    known.update(
        (node.output[0], node.attribute[0].t)
        for node in graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    )
    gone = []
    for node in graph.node:
        if node.op_type not in _FOLDED or not all(name in known for name in node.input if name):
            continue
        inputs = {name: numpy_helper.to_array(known[name]) for name in node.input if name}
        found = ReferenceEvaluator(node).run(None, inputs)
        for name, value in zip(node.output, found, strict=True):
            known[name] = numpy_helper.from_array(np.asarray(value), name)
            graph.initializer.append(known[name])
        gone.append(node)
    for node in gone:
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    used.update(output.name for output in graph.output)
    kept = [one for one in graph.initializer if one.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return len(gone)
