"""Takes a contraction over windows, gives its loops image by image, each from a staged copy.

    for n in batch:  for block of rows:
        staged = rows of the image, padded, channels last
        y[n] = contraction of staged with the weights, by the recipe for products

What does not change from image to image (packed weights) is made once, before. Where that does not
fit, the whole operand is staged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial

from ir import scalar
from ir.dependence import scalars, written
from ir.index import Index, Var
from ir.loops import (
    Accumulate,
    Buffer,
    For,
    Function,
    Init,
    Kernel,
    Stmt,
    Tile,
    statements,
)
from ir.places import Place, places, without
from ir.scalar import Scalar
from nncompiler.codegen.target import Target
from nncompiler.schedule.ahead import ask_ahead, lines_of
from nncompiler.schedule.axes import map_kernel_indices
from nncompiler.schedule.copying import copied_by_tile
from nncompiler.schedule.heuristics import size_of
from nncompiler.schedule.staging import stage

BLOCK = "_block"
STAGED = 1 << 18  # bytes of a staged block
SCRATCH = 3 << 18  # bytes of all that a thread keeps to itself

Plan = Callable[[Kernel, Target], tuple[Kernel, Function]]


def windowed(kernel: Kernel) -> int | None:
    """Which operand is padded or read through overlapping windows, the first such one."""
    (reduction,) = kernel.reductions
    names = {b.name for b in kernel.buffers}
    for number, operand in enumerate(reduction.value.args):
        found = places(operand) if operand.name in names else None  # not staged already
        if found is not None and any(p.guard or p.is_window for p in found):
            return number
    return None


def spread(kernel: Kernel) -> int | None:
    """Which operand has no two values that are neighbours in memory, the first such one."""
    (reduction,) = kernel.reductions
    for number, operand in enumerate(reduction.value.args):
        found = places(operand) if operand.kind == "load" else None
        if found and all(p.unit != 1 for p in found):
            return number
    return None


def plan_images(
    kernel: Kernel, number: int, *, last: bool, plan: Plan, target: Target
) -> tuple[Kernel, Function] | None:
    """The scheduled kernel and its loops, image by image; None where an image is no block of work.

    `number` says which operand is windowed, `last` whether the channels, which are summed, stand
    last in the copy.
    """
    if not _is_image(kernel, places(operand_of(kernel, number)) or []):
        return None
    cut = _cut_rows(kernel, number)
    blocks = [v for v in cut.axes if v not in kernel.axes and v.name.endswith(BLOCK)]
    nearest = kernel.reduce_axes if last else ()
    return _in_blocks(kernel, cut, number, blocks, nearest=nearest, plan=plan, target=target)


def plan_columns(
    kernel: Kernel, number: int, n: Var, width: int, *, plan: Plan, target: Target
) -> tuple[Kernel, Function] | None:
    """The same for a block of `width` columns `n` of an operand at a time: its rows, which lie far
    apart, would fall on the same lines of the cache; or its columns are no neighbours yet.

        for i in batch:  for block of 64 columns:
            staged[k, n] = x[i, k, block * 64 + n]    (by the first tiles, where there is one)
            y[i, m, block] = contraction of w[m, k] with staged
    """
    block, column = Var(f"{n.name}{BLOCK}", size_of(n.extent) // width), Var(n.name, width)
    cut = cut_axis(kernel, n, block, column)
    operand = operand_of(cut, number)
    around = [v for v in cut.axes if v != column and v in operand.index.variables]
    steps = ((v, operand.index.coefficient(v) or 0) for v in kernel.reduce_axes)
    walk = [*((size_of(v.extent), step) for v, step in steps if step), lines_of(width, operand)]

    if operand.index.coefficient(column) != 1:  # what lies together comes by itself
        return _in_blocks(kernel, cut, number, [block], nearest=[column], plan=plan, target=target)

    def ahead(inner: Kernel, target: Target) -> tuple[Kernel, Function]:
        planned, function = plan(inner, target)
        body = ask_ahead(function.body, operand, around, walk, f"staged{number}")
        return planned, replace(function, body=copied_by_tile(body, operand, around))

    return _in_blocks(kernel, cut, number, [block], nearest=[column], plan=ahead, target=target)


def _in_blocks(
    kernel: Kernel,
    cut: Kernel,
    number: int,
    blocks: Sequence[Var],
    *,
    nearest: Collection[Var],
    plan: Plan,
    target: Target,
) -> tuple[Kernel, Function] | None:
    """The loops over the operand's outer axes and the blocks, with a copy for every pass, in which
    the coordinates of the `nearest` variables stand last."""
    found = places(operand_of(cut, number))
    assert found is not None
    alone = [p.terms[0][0] for p in found if _is_image_of_its_own(p)]
    inner_axes = [v for v in cut.axes if v not in kernel.axes and v not in blocks]
    around = [v for v in alone if v in cut.axes and v not in (*blocks, *inner_axes)]
    around += blocks
    order = [p for p in (without(p, around) for p in found) if p.terms]
    if any(not isinstance(p.extent, int) for p in order):
        return None
    order.sort(key=lambda p: all(v in nearest for v, _ in p.terms))
    lanes = target.lanes(operand_of(cut, number).dtype)
    staged, copies, buffer = stage(operand_of(cut, number), order, around, lanes, f"staged{number}")
    inner = with_operand(cut, number, staged)
    inner = replace(
        inner,
        axes=tuple(v for v in inner.axes if v not in around),
        reduce_axes=_far_first(inner.reduce_axes, staged),
    )
    planned, function = plan(inner, target)
    is_made = any(isinstance(s, Tile) and s.source is not None for s in function.body)
    looped = in_loops(function, around, () if is_made else copies, (buffer,))
    if looped is None:
        return None
    return replace(kernel, schedule=planned.schedule), replace(looped, buffers=kernel.buffers)


def plan_whole(
    kernel: Kernel, number: int, *, plan: Plan, target: Target
) -> tuple[Kernel, Function]:
    """The whole operand is staged, as it lies, before anything else."""
    operand = operand_of(kernel, number)
    found = places(operand)
    assert found is not None
    staged, copies, buffer = stage(
        operand, found, (), target.lanes(operand.dtype), f"staged{number}"
    )
    planned, function = plan(with_operand(kernel, number, staged), target)
    whens = (*[None] * len(copies), *function.whens) if function.whens else ()
    body, workspace = (*copies, *function.body), (buffer, *function.workspace)
    function = replace(
        function, buffers=kernel.buffers, body=body, workspace=workspace, whens=whens
    )
    return replace(kernel, schedule=planned.schedule), function


def _is_image(kernel: Kernel, found: Sequence[Place]) -> bool:
    """Do windows move with the result, and are not what is summed (a weight's gradient)?"""
    longest = [max(p.terms, key=lambda t: size_of(t[0].extent))[0] for p in found if p.is_window]
    return all(v in kernel.axes for v in longest)


def operand_of(kernel: Kernel, number: int) -> Scalar:
    (reduction,) = kernel.reductions
    return reduction.value.args[number]


def with_operand(kernel: Kernel, number: int, staged: Scalar) -> Kernel:
    """The kernel with another operand."""
    (reduction,) = kernel.reductions
    args = list(reduction.value.args)
    args[number] = staged
    value = scalar.apply("mul", args, staged.dtype)
    return replace(kernel, reductions=(replace(reduction, value=value),))


def _far_first(axes: Sequence[Var], operand: Scalar) -> tuple[Var, ...]:
    return tuple(sorted(axes, key=lambda v: -(operand.index.coefficient(v) or 0)))


def _is_image_of_its_own(place: Place) -> bool:
    """Does every value along it have a copy of its own? Not where they are neighbours in memory:
    one by one, they would be gathered (columns under taps of 7 x 1)."""
    return len(place.terms) == 1 and place.guard is None and place.unit != 1


def _cut_rows(kernel: Kernel, number: int) -> Kernel:
    """Large images are staged in blocks of as many rows as fit, which divide the rows.

    h -> h_rows * size + h
    """
    operand = operand_of(kernel, number)
    found = places(operand)
    assert found is not None
    windows = [p for p in found if len(p.terms) > 1]
    if not windows:
        return kernel
    row = next(((v, step) for v, step in windows[0].terms if v in kernel.axes), None)
    if row is None:
        return kernel
    v, step = row
    assert isinstance(v.extent, int) and isinstance(windows[0].extent, int)
    alone = [p for p in found if _is_image_of_its_own(p) and p.terms[0][0] in kernel.axes]
    rest = [p.extent for p in found if p not in (*alone, windows[0])]
    if not all(isinstance(e, int) for e in rest):
        return kernel
    line = math.prod(e for e in rest if isinstance(e, int)) * operand.dtype.bytes
    overlap = windows[0].extent - v.extent * step
    sizes = [s for s in range(1, v.extent + 1) if v.extent % s == 0]
    fitting = [s for s in sizes if (s * step + overlap) * line <= STAGED]
    size = max(fitting, default=1)
    if size == v.extent:
        return kernel
    return cut_axis(kernel, v, Var(f"{v.name}{BLOCK}", v.extent // size), Var(v.name, size))


def cut_axis(kernel: Kernel, v: Var, block: Var, inner: Var) -> Kernel:
    """v -> block * size + inner;  v -> block where a block is a single row: no axis of length one,
    which might be given to the lanes."""
    parts = (block, inner) if size_of(inner.extent) > 1 else (block,)
    change = {v: Index.of(block) * size_of(inner.extent) + Index.of(inner)}
    axes = [a for old in kernel.axes for a in (parts if old == v else (old,))]
    kernel = map_kernel_indices(kernel, partial(Index.substitute, values=change))
    return replace(kernel, axes=tuple(axes))


# --------------------------------------------------------------------------- loops around


def in_loops(
    function: Function,
    around: Sequence[Var],
    copies: tuple[Stmt, ...],
    staged: tuple[Buffer, ...],
) -> Function | None:
    """The function's loops inside of those over images, each after its copy. Buffers that change
    with the image belong to one thread; None where they are too large for that."""
    if function.whens:
        return None
    body, names = list(function.body), {b.name for b in staged}
    once: list[Stmt] = []
    while body and _is_fixed(body[0], around, names):
        once.append(body.pop(0))
    inside: tuple[Stmt, ...] = (*copies, *body)
    for v in reversed(around):
        inside = (For(v, "serial", 1, inside),)
    shared = written(once)
    if not around:
        shared |= {b.name for b in function.workspace} | names
    every = (*staged, *function.workspace)
    own = (*(b for b in every if b.name not in shared), *function.scratch)
    if any(not isinstance(b.size, int) for b in own):
        return None
    total = sum(b.size * b.dtype.bytes for b in own if isinstance(b.size, int))
    if around and total > SCRATCH:
        return None
    kept = tuple(b for b in every if b.name in shared)
    return replace(function, body=(*once, *inside), scratch=own, workspace=kept)


def _is_fixed(stmt: Stmt, around: Sequence[Var], staged: set[str]) -> bool:
    """Is the statement a copy of what all images share?"""
    inner = list(statements([stmt]))
    if any(isinstance(s, (Tile, Init, Accumulate)) for s in inner):
        return False
    values = [x for s in inner for x in scalar.walk(scalars(s))]
    used = {v for x in values for v in scalar.variables(x)}
    return not used & set(around) and not any(x.name in staged for x in values)
