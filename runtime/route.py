"""Takes a session, how to call it and a frame, gives the context of a native call: see glue.py."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from runtime.buffers import DTYPES, Array, address, bind_shape
from runtime.frame import Frame
from runtime.glue import VIEW, Cast, Kind, Slot
from runtime.glue import Port as Field
from runtime.inputs import Port
from runtime.layout import array_type
from runtime.native import BRIEF, Context, entry_address
from runtime.recycle import result_empty
from runtime.session import Session

FORMATS = {d: ord(memoryview(np.empty(0, d).data).format) for d in DTYPES.values()}
NO_CAST = (0, -1)
CASTS = {
    DTYPES["f32"]: ((FORMATS[DTYPES["f64"]], Cast.F64_F32),),
    DTYPES["f64"]: ((FORMATS[DTYPES["f32"]], Cast.F32_F64),),
    DTYPES["i64"]: ((FORMATS[DTYPES["i32"]], Cast.I32_I64), (ord("B"), Cast.U8_I64)),
}
COPIED = 1024  # bytes; smaller results are copied out of the frame
ALIGNED = 1 << 16  # bytes; from here on it pays to align a result


@dataclass(frozen=True)
class Route:
    """A session, and how a callable's arguments and result map to its inputs and outputs.

    `names` are all inputs of the session in the order of the arguments. The result is the output
    of that name, as an array or (`number`) a Python float; where it is None, what `shape` makes of
    the outputs by name. `casts` says whether small arrays of another width are converted natively.
    """

    session: Session
    names: tuple[str, ...]
    output: str | None = None
    number: bool = False
    casts: bool = False
    shape: Callable[[dict[str, Array]], Any] = dict


def describe(context: Context, route: Route, frame: Frame) -> bool:
    """Fills the context for calls in this frame; False where there is no short way."""
    context.number(Slot.FRESH, -1)
    ports = _ports(route, frame)
    if ports is None or not _describe_result(context, route, frame):
        return False
    session = route.session
    context.number(Slot.ENTRY, entry_address(session.program.entry))
    context.number(Slot.BUFFERS, frame.table)
    context.number(Slot.SYMBOLS, frame.syms)
    context.number(Slot.TEAM, session.team or 0)
    context.lock(session.lock if session.writes else None)
    detached = frame.work() > BRIEF
    context.number(Slot.DETACH, int(detached))
    # while other threads run, only a buffer keeps them from resizing the array
    _describe_ports(context, ports, frame, route.casts, 0 if detached else array_type())
    _describe_extents(context, route, frame)
    return True


def _ports(route: Route, frame: Frame) -> list[Port] | None:
    """The arguments in their order; None where one cannot simply be pointed at."""
    ports = {port.name: port for port in route.session.wanted}
    simple = all(
        not p.donated and p.coefficient <= 1 and p.number not in frame.layout.followers
        for p in ports.values()
    )
    if not simple or sorted(route.names) != sorted(ports):
        return None
    if frame.extents is None or len(frame.extents) > 1 or 0 in frame.extents:
        return None
    return [ports[name] for name in route.names]


def _describe_result(context: Context, route: Route, frame: Frame) -> bool:
    results, layout = route.session.results, frame.layout
    chosen = list(results.values()) if route.output is None else [results[route.output]]
    passed = {port.number for port in route.session.wanted}
    if any(layout.root(number) in passed for number in chosen):
        return False  # an input handed out again: the frame holds no copy of it
    number = chosen[0] if len(chosen) == 1 else -1
    alone = number not in layout.followers and route.output is not None and not route.number
    if any(n != number or not alone for n, _, _ in frame.fresh):
        return False
    own = frame.arrays.get(number) if number in layout.outputs else None
    if alone and number in layout.outputs and (own is None or own.nbytes > COPIED):
        context.number(Slot.FRESH, number)
        context.value(Kind.NEW, _allocator(frame, number))
    elif route.number and own is not None and own.dtype.kind == "f":
        context.scalar(own)
    elif alone and own is not None:
        context.value(Kind.AFTER, own.copy)
    else:
        context.value(Kind.AFTER, partial(_collect, route, frame))
    return True


def _allocator(frame: Frame, number: int) -> Callable[[], Array]:
    plan = frame.layout.plan
    bound = dict(zip(plan.symbols, frame.extents or (), strict=True))
    spec = plan.buffers[number]
    shape, dtype = bind_shape(spec, bound), DTYPES[spec.dtype]
    size = dtype.itemsize * math.prod(shape)
    return partial(result_empty if size >= ALIGNED else np.empty, shape, dtype)


def _collect(route: Route, frame: Frame) -> Any:
    results = route.session.collect(frame)
    if route.output is None:
        return route.shape(results)
    return float(results[route.output]) if route.number else results[route.output]


def _describe_ports(
    context: Context, ports: Sequence[Port], frame: Frame, casts: bool, direct: int
) -> None:
    wanted = [-1 if isinstance(d, list) else d for port in ports for d in port.spec.shape]
    shapes = (ctypes.c_int64 * max(len(wanted), 1))(*wanted)
    where = ctypes.addressof(shapes)
    table = []
    for port in ports:
        own, rank = frame.arrays.get(port.number), len(port.spec.shape)
        also = (*(CASTS.get(port.dtype, ()) if casts else ()), NO_CAST, NO_CAST)
        row = {
            Field.NUMBER: port.number,
            Field.HOME: 0 if own is None else address(own),
            Field.FORMAT: FORMATS[port.dtype],
            Field.ITEMSIZE: port.dtype.itemsize,
            Field.RANK: rank,
            Field.SHAPE: where,
            Field.ROOM: 0 if own is None else own.size,
            Field.ALSO: also[0][0],
            Field.CAST: also[0][1],
            Field.ALSO_2: also[1][0],
            Field.CAST_2: also[1][1],
            Field.TYPE: direct,
            Field.DTYPE: id(port.dtype),
        }
        table += [row[field] for field in Field if field is not Field.SIZE]
        where += 8 * rank
    context.table(Slot.PORTS, table, beside=shapes)
    context.table(Slot.VIEWS, [0] * (VIEW // 8 * (len(ports) + 1)))


def _describe_extents(context: Context, route: Route, frame: Frame) -> None:
    """Smaller batches fit in the frame too, where nothing that comes out depends on them."""
    extent = frame.extents[0] if frame.extents else 0
    plan = frame.layout.plan
    fixed = all(isinstance(d, int) for n in frame.layout.outputs for d in plan.buffers[n].shape)
    free = bool(extent) and fixed and route.number
    context.number(Slot.EXTENT, extent)
    context.number(Slot.LOWEST, 1 if free else extent)
    context.number(Slot.HIGHEST, frame.arena.capacity[0] if free else extent)
