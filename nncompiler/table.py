"""Takes headed rows and notes, gives a table as plain text and as HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Cells are text; columns whose cells all look like numbers are set flush right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[dict[str, str]]:
        """Every row as a dict by column."""
        return (dict(zip(self.header, row, strict=True)) for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def _widths(self) -> list[int]:
        return [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]

    def _right(self) -> list[bool]:
        columns = list(zip(*self.rows, strict=True)) or [()] * len(self.header)
        return [bool(c) and all(_is_number(cell) for cell in c) for c in columns]

    def __str__(self) -> str:
        widths, right = self._widths(), self._right()
        lines = [_line(self.header, widths, right), "  ".join("-" * w for w in widths)]
        lines.extend(_line(row, widths, right) for row in self.rows)
        lines.extend(self.notes)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape  # for notebooks only

        right = self._right()
        cells = ['<td style="text-align:left">', '<td style="text-align:right">']
        head = "".join(f"<th>{escape(h)}</th>" for h in self.header)
        body = "".join(
            "<tr>"
            + "".join(f"{cells[r]}{escape(c)}</td>" for c, r in zip(row, right, strict=True))
            + "</tr>"
            for row in self.rows
        )
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes if note)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    aligned = [
        c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)
    ]
    return "  ".join(aligned).rstrip()


def _is_number(text: str) -> bool:
    plain = text.replace(",", "").removesuffix("%").strip()
    return plain.replace(".", "", 1).replace("-", "", 1).isdigit() or not text


def in_notebook() -> bool:
    """Whether an IPython kernel shows results as HTML."""
    import sys

    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


def bytes_text(size: int) -> str:
    """A size that people read: 512 B, 48.0 KiB, 3.2 MiB."""
    if size < 1024:
        return f"{size} B"
    value = size / 1024
    for unit in ("KiB", "MiB"):
        if value < 1024:
            return f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
