"""Takes kernels, gives scheduled kernels and their loop statements: how to loop."""

from __future__ import annotations

from dataclasses import replace

from ir.loops import Function, Kernel, Vectorize
from nncompiler.codegen.target import Target
from nncompiler.options import Options
from nncompiler.schedule.apply import row_loops, scatter_loops
from nncompiler.schedule.axes import join_short_axes, merge_axes
from nncompiler.schedule.channels import channel_loops
from nncompiler.schedule.contraction import plan_contraction
from nncompiler.schedule.heuristics import choose_rows, kernel_lanes
from nncompiler.schedule.partial import partial_loops
from nncompiler.schedule.product import as_product
from nncompiler.schedule.sparse import plan_sparse
from nncompiler.schedule.split import split_stages
from nncompiler.schedule.strided import find_strided, plan_strided


def schedule(
    kernel: Kernel, target: Target, options: Options | None = None
) -> tuple[Kernel, Function]:
    """Merge axes, choose directives, apply them, and say what threads may share."""
    if kernel.recipe == "scatter":
        lanes = kernel_lanes(kernel, target)
        kernel = replace(kernel, schedule=(Vectorize("z", lanes),))
        return kernel, scatter_loops(kernel)
    if kernel.sparse is not None:
        return plan_sparse(kernel, target)
    kernel = as_product(merge_axes(kernel))
    if kernel.recipe == "contract":
        strided = find_strided(kernel)
        if strided is not None:
            return split_stages(*plan_strided(kernel, strided, target), target)
        return split_stages(*plan_contraction(kernel, target, options or Options()), target)
    partial = partial_loops(kernel, target)
    if partial is not None:
        return partial
    by_image = channel_loops(kernel, target)
    if by_image is not None:
        return by_image
    kernel = join_short_axes(kernel)
    kernel = replace(kernel, schedule=choose_rows(kernel, target))
    return split_stages(kernel, row_loops(kernel), target)
