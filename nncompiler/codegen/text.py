"""Takes instructions as text, gives the text of one function: its blocks, scopes and names.

Equal instructions of a scope (or one around it) are written once, so callers need not remember what
they already computed:

    e.op("add i64 %i, 1") -> "%0"        the line "%0 = add i64 %i, 1"
    e.op("add i64 %i, 1") -> "%0"        nothing new

Scopes follow dominance: `push` on entering a block that does not dominate what follows, `pop` on
leaving it.
"""

from __future__ import annotations

from collections.abc import Iterable

from ir.types import DType
from nncompiler.codegen.values import Value, llvm_type, suffix


class Text:
    """The text of one function under construction.

    `declarations` may be shared by the functions of a module, which prints each line once.
    """

    def __init__(self, declarations: dict[str, None] | None = None) -> None:
        self.lines: list[str] = []
        self.entry: list[str] = []
        self.declarations: dict[str, None] = {} if declarations is None else declarations
        self.block = "entry"
        self._scopes: list[dict[str, str]] = [{}]
        self._count = 0

    def op(self, text: str, key: bool = True) -> str:
        """Emit `%N = text`; with `key` an equal earlier one in scope is reused."""
        known = self.recall(text) if key else None
        if known is not None:
            return known
        name = f"%{self._count}"
        self._count += 1
        self.lines.append(f"  {name} = {text}")
        if key:
            self.remember(text, name)
        return name

    def recall(self, key: str) -> str | None:
        """What `remember` was told in this scope or one around it."""
        for scope in reversed(self._scopes):
            if key in scope:
                return scope[key]
        return None

    def remember(self, key: str, text: str) -> None:
        self._scopes[-1][key] = text

    def value(self, text: str, dtype: DType, lanes: int = 1, *, key: bool = True) -> Value:
        return Value(self.op(text, key), dtype, lanes)

    def do(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def new_name(self, hint: str = "t") -> str:
        """A fresh `%hint.N`, for values that are used before they are written (phis)."""
        self._count += 1
        return f"%{hint}.{self._count}"

    def new_label(self, hint: str = "block") -> str:
        self._count += 1
        return f"{hint}.{self._count}"

    def label(self, name: str) -> None:
        """Begin the block `name`; the block before it must have been ended."""
        self.lines.append(f"{name}:")
        self.block = name

    def branch(self, label: str) -> None:
        self.do(f"br label %{label}")

    def branch_if(self, condition: Value, then: str, otherwise: str) -> None:
        self.do(f"br i1 {condition.text}, label %{then}, label %{otherwise}")

    def push(self) -> None:
        self._scopes.append({})

    def pop(self) -> None:
        self._scopes.pop()

    def declare(self, text: str) -> None:
        self.declarations[text] = None

    def alloca(self, type: str, count: int = 1, align: int = 64) -> str:
        """Stack space in the entry block; gives the pointer's name."""
        name = self.new_name("stack")
        self.entry.append(f"  {name} = alloca {type}, i64 {count}, align {align}")
        return name

    def function(self, header: str) -> str:
        """The whole definition; `header` is all between `define` and the brace."""
        body = "\n".join(self.entry + self.lines)
        return f"define {header} {{\nentry:\n{body}\n}}\n"

    def call(self, name: str, dtype: DType, args: Iterable[Value | str], lanes: int = 1) -> Value:
        """A pure intrinsic `name` (without type suffix, which follows the result)."""
        return self.call_full(f"{name}.{suffix(dtype, lanes)}", dtype, args, lanes)

    def call_full(
        self, name: str, dtype: DType, args: Iterable[Value | str], lanes: int = 1
    ) -> Value:
        """A pure intrinsic under its full name; a str argument is one that carries its type."""
        operands = [a if isinstance(a, str) else a.typed for a in args]
        types = ", ".join(o[: o.index(">") + 1] if o[0] == "<" else o.split()[0] for o in operands)
        result = llvm_type(dtype, lanes)
        self.declare(f"declare {result} @{name}({types})")
        return self.value(f"call {result} @{name}({', '.join(operands)})", dtype, lanes)
