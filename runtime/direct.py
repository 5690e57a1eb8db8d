"""Takes a general way to call a session, gives a callable that takes the short way where it can.

    general(x, t)           any arrays, lists, dtypes, batch sizes; all the errors
    direct(general, route)  the same; arrays that are exactly what the entry wants go to it at once

The short way runs in a frame that a general call left behind, laid out for its batch size; another
batch size takes over when it comes twice in a row. While another call is in that frame, and
whenever something is unusual, the general way is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runtime.frame import Frame
from runtime.glue import Slot
from runtime.native import POSSIBLE, Context, native_callable
from runtime.route import Route, describe

SPARE = 1 << 20  # bytes; a smaller frame is kept although another call of its session may want one
Key = tuple[Route, tuple[int, ...] | None]


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
        self.frame: Frame | None = None  # what the context describes, if it does
        self.key: Key | None = None
        self.missed: Key | None = None  # what the last general call would have us describe
        self.context.hold(Slot.GENERAL, self.call)
        self.context.hold(Slot.BESIDE, general)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The general way; its session may use our frame meanwhile, if that is large."""
        if self.frame is not None and self.frame.arena.size > SPARE:
            self._give_back()
        result = self.general(*args, **kwargs)
        route = self.route()
        if route is not None:
            self._follow(route)
        return result

    def _follow(self, route: Route) -> None:
        """Describes the frame that a general call left, unless the one described is worth more."""
        frame = route.session.take()
        if frame is None:
            return
        hits, self.context.slots[Slot.HITS] = self.context.slots[Slot.HITS], 0
        key = (route, frame.extents)
        if self.frame is not None and (hits or key == self.key or key != self.missed):
            self.missed = key
            route.session.give(frame)
            return
        self._give_back()
        self.frame, self.key = frame, key
        if describe(self.context, route, frame):
            self.context.number(Slot.COUNT, len(route.names))

    def _give_back(self) -> None:
        self.context.number(Slot.COUNT, -1)
        frame, self.frame = self.frame, None
        if frame is None or self.key is None:
            return
        number = self.context.slots[Slot.FRESH]
        if number in frame.arrays:  # where a new array stood, the frame's own one stands again
            frame.point(number, frame.arrays[number])
        self.key[0].session.give(frame)
