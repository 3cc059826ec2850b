"""A traced student in operations that ONNX has, without tracing it again.

`torch.onnx.export` lowers a program by running it three times more with symbols for shapes, which
is most of the time that an export takes (two minutes for a student of 0.8 million parameters).
What `exportable` leaves to be lowered are a dozen operations, each replaced in the graph as it
stands.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, Node

aten = torch.ops.aten


class Lowered(ExportedProgram):
    """A program that is lowered already; made by `lowered`."""

    def run_decompositions(self, *_: object, **__: object) -> ExportedProgram:  # type: ignore[override]
        """Itself."""
        return self


def lowered(program: ExportedProgram) -> ExportedProgram | None:
    """A copy for `torch.onnx.export`; None where a block of operations is in the way."""
    made = copy.copy(program)
    made._graph_module = copy.copy(program.graph_module)
    graph: Graph = copy.deepcopy(program.graph)
    made._graph_module.graph = graph
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            return None
        change = _CHANGES.get(node.target)
        if change is not None:
            with graph.inserting_before(node):
                change(graph, node)
    graph.eliminate_dead_code()
    made._graph_module.recompile()
    made.__class__ = Lowered
    return made


def _call(graph: Graph, node: Node, target: Callable[..., object], *args: Any) -> Node:
    """A call whose result is like that of `node`."""
    made = graph.call_function(target, args)
    made.meta = dict(node.meta)
    return made


def _replace(graph: Graph, node: Node, target: Callable[..., object], *args: Any) -> None:
    node.replace_all_uses_with(_call(graph, node, target, *args))
    graph.erase_node(node)


def _same(graph: Graph, node: Node) -> None:
    """What does nothing to numbers."""
    node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
    graph.erase_node(node)


def _assertion(graph: Graph, node: Node) -> None:
    graph.erase_node(node)


def _cast(graph: Graph, node: Node) -> None:
    source = node.args[0]
    assert isinstance(source, Node)
    if source.meta["val"].dtype == node.meta["val"].dtype:
        _same(graph, node)
        return
    made = graph.call_function(aten._to_copy.default, (source,), {"dtype": node.meta["val"].dtype})
    made.meta = dict(node.meta)
    node.replace_all_uses_with(made)
    graph.erase_node(node)


def _and(graph: Graph, node: Node) -> None:
    if node.meta["val"].dtype == torch.bool:
        _replace(graph, node, aten.logical_and.default, *node.args)


def _subtracted(graph: Graph, node: Node) -> None:
    # scalar - x
    source, scalar, *_ = node.args
    assert isinstance(source, Node)
    negative = _call(graph, source, aten.neg.default, source)
    _replace(graph, node, aten.add.Scalar, negative, scalar)


def _fill_in_place(graph: Graph, node: Node) -> None:
    # in place on what was made for it: whoever reads it later reads the result
    source = node.args[0]
    assert isinstance(source, Node)
    made = _call(graph, node, aten.masked_fill.Scalar, *node.args)
    node.replace_all_uses_with(made)
    source.replace_all_uses_with(made, delete_user_cb=lambda user: user > made)
    graph.erase_node(node)


_CHANGES: dict[object, Callable[[Graph, Node], None]] = {
    aten.to.dtype: _cast,
    aten.to.device: _cast,
    aten.to.dtype_layout: _cast,
    aten._assert_tensor_metadata.default: _assertion,
    aten.detach_.default: _same,
    aten.detach.default: _same,
    aten.lift_fresh_copy.default: _same,
    aten.__and__.Tensor: _and,
    aten.rsub.Scalar: _subtracted,
    aten.masked_fill_.Scalar: _fill_in_place,
}
