"""Takes a lowered graph, gives the text of any of its stages."""

from __future__ import annotations

from ir.text import print_graph
from ir.text_loops import print_function, print_kernel
from nncompiler.codegen.llvm import assembly
from nncompiler.pipeline import Lowered


def stage_text(lowered: Lowered, name: str) -> str:
    """The text of a stage from "simplified" to "assembly"."""
    if name == "simplified":
        return print_graph(lowered.simplified)
    if name == "kernels":
        return "\n\n".join(print_kernel(kernel) for kernel in lowered.kernels)
    if name == "loops":
        return "\n\n".join(print_function(s.function) for s in lowered.scheduled)
    if name == "llvm":
        return lowered.module
    return assembly(lowered.module, lowered.target)
