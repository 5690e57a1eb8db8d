"""Takes operations, gives the two intermediate representations: graphs of tensors, and kernels.

types graph op ops         what to compute         text verify interpret convert
index scalar loops         how to loop             text_loops verify_loops interpret_loops
"""

from ir import ops
from ir.graph import Graph, Literal, Node, make, rebuild, rewrite, substitute, topological
from ir.interpret import evaluate, run_graph, run_nodes
from ir.op import Lowering, Op
from ir.text import parse_graph, print_graph
from ir.types import DType, Extent, TensorType, dtype_of
from ir.verify import verify_graph

__all__ = [
    "DType",
    "Extent",
    "Graph",
    "Literal",
    "Lowering",
    "Node",
    "Op",
    "TensorType",
    "dtype_of",
    "evaluate",
    "make",
    "ops",
    "parse_graph",
    "print_graph",
    "rebuild",
    "rewrite",
    "run_graph",
    "run_nodes",
    "substitute",
    "topological",
    "verify_graph",
]
