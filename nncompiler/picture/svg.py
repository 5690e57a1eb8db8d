"""Takes shapes, gives SVG text: elements with escaped attributes and tooltips."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

FONT = "Helvetica, Arial, sans-serif"
_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def text_of(value: object) -> str:
    """A text as XML holds it; characters that no XML may hold become a question mark."""
    return escape(_UNPRINTABLE.sub("?", str(value)), quote=True)


def number(value: float) -> str:
    """A coordinate: two digits behind the point, none where they are zero."""
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")


def element(name: str, content: str | Sequence[str] = "", **attributes: object) -> str:
    """<name attributes>content</name>; `content` is SVG already, underscores become hyphens."""
    parts = [name]
    for key, value in attributes.items():
        if value is None:
            continue
        text = number(value) if isinstance(value, float) else text_of(value)
        parts.append(f'{key.rstrip("_").replace("_", "-")}="{text}"')
    inside = content if isinstance(content, str) else "\n".join(content)
    return f"<{' '.join(parts)}/>" if not inside else f"<{' '.join(parts)}>{inside}</{name}>"


def titled(title: object, *content: str, **attributes: object) -> str:
    """A group of shapes with one tooltip."""
    return element("g", (element("title", text_of(title)), *content), **attributes)


def label(
    x: float,
    y: float,
    text: object,
    *,
    size: float = 11.0,
    anchor: str = "middle",
    fill: str = "#222",
) -> str:
    return element("text", text_of(text), x=x, y=y, font_size=size, text_anchor=anchor, fill=fill)


def curve(points: Sequence[tuple[float, float]], *, vertical: bool = False) -> str:
    """The path through points that leaves and reaches each of them along the layers' direction."""
    (x, y), *rest = points
    path = [f"M{number(x)} {number(y)}"]
    for u, v in rest:
        if vertical:
            middle = (y + v) / 2
            bend = (x, middle, u, middle, u, v)
        else:
            middle = (x + u) / 2
            bend = (middle, y, middle, v, u, v)
        path.append("C" + " ".join(map(number, bend)))
        x, y = u, v
    return " ".join(path)


def document(width: float, height: float, content: Sequence[str], title: str) -> str:
    """A whole picture on white ground."""
    w, h = number(width), number(height)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" '
        f'viewBox="0 0 {w} {h}" font-family="{FONT}">'
    )
    ground = element("rect", width=w, height=h, fill="#ffffff")
    return "\n".join([head, element("title", text_of(title)), ground, *content, "</svg>"])


def width_of(text: str, size: float = 11.0) -> float:
    """About how wide a text is printed."""
    narrow = sum(c in "iljtf.,:;'|![]() " for c in text)
    return size * (0.6 * (len(text) - narrow) + 0.32 * narrow)


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
