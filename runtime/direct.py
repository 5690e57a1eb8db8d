"""Takes a general way to call a session, gives a callable that takes the short way where it can.

    general(x, t)           any arrays, lists, dtypes, batch sizes; all the errors
    direct(general, route)  the same; arrays that are exactly what the entry wants go to it at once

The short way runs in a frame that the last general call left behind, laid out for its batch size.
While another call is in that frame, and whenever something is unusual, the general way is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runtime.frame import Frame
from runtime.glue import Slot
from runtime.native import POSSIBLE, Context, native_callable
from runtime.route import Route, describe


def direct(general: Callable[..., Any], route: Callable[[], Route | None]) -> Callable[..., Any]:
    """`general`, but quick where `route` names a session that can be called at once.

    `route` is asked after every general call.
    """
    if not POSSIBLE:
        return general
    owner = _Direct(general, route)
    return native_callable(owner.context, owner)


class _Direct:
    """The context of a callable, and the frame that it runs in.

    All methods run inside a call that has seized the context, so never twice at a time.
    """

    def __init__(self, general: Callable[..., Any], route: Callable[[], Route | None]) -> None:
        self.general = general
        self.route = route
        self.context = Context()
        self.frame: Frame | None = None
        self.bound: tuple[Route, Frame, tuple[int, ...] | None] | None = None
        self.count = -1
        self.context.hold(Slot.GENERAL, self.call)
        self.context.hold(Slot.BESIDE, general)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The general way, with the frame given back to its session meanwhile."""
        self._give_back()
        result = self.general(*args, **kwargs)
        route = self.route()
        if route is not None:
            self._take(route)
        return result

    def _give_back(self) -> None:
        self.context.number(Slot.COUNT, -1)
        frame, self.frame = self.frame, None
        if frame is None or self.bound is None:
            return
        number = int(self.context.slots[Slot.FRESH])
        if number in frame.arrays:  # where a new array stood, the frame's own one stands again
            frame.point(number, frame.arrays[number])
        self.bound[0].session.give(frame)

    def _take(self, route: Route) -> None:
        frame = route.session.take()
        if frame is None:
            return
        if self.bound != (route, frame, frame.extents):
            self.count = len(route.names) if describe(self.context, route, frame) else -1
            self.bound = (route, frame, frame.extents)
        self.frame = frame
        self.context.number(Slot.COUNT, self.count)
