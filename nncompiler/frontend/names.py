"""Takes a wrong name, gives the end of an error message: the nearest right one, and all of them."""

from __future__ import annotations

from collections.abc import Iterable


def suggest(wrong: object, known: Iterable[str]) -> str:
    """ "did you mean 'relu'?" where one is near, else the list of known names."""
    from difflib import get_close_matches  # for errors only

    names = list(known)
    close = get_close_matches(str(wrong), names, 1, 0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(names)}" if names else "there are none"
