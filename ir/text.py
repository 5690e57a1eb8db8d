"""Takes a graph, gives its text, and takes the text, gives the same nodes: parse(print(g)) is g.

    graph "net"(%x, %w) {
      %x = input(dtype=f32, id="x", shape=(batch, 2)) : f32[batch,2]
      %w = input(dtype=f32, id="w", shape=(2, 3)) : f32[2,3]
      %hidden = contract(%x, %w, spec="ab,bc->ac") : f32[batch,3]
      %0 = mul(%hidden, 0.5:f32[batch,3]) : f32[batch,3]
      return "y"=%0
    }

A scan's body is a nested graph: scan(%c, %x, body=graph(%0, %1) { ... return (%3, %4) }, ...), and
its type the types of its results, (f32[batch,4], f32[batch,9,4]).

%name is a value with the user's name (quoted where it is no word, `%name#2` where it stands twice),
%0 one without. `0.5:f32[batch,3]` is that number everywhere.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ir.graph import Body, Graph, Literal, Node, make
from ir.op import REGISTRY
from ir.ops.core import broadcast_to
from ir.types import DTYPES, Dim, DType, Extent, TensorType, TupleType

WORD = re.compile(r"[A-Za-z_](?:[\w.:\-]*\w)?")
SYMBOL = re.compile(r"[A-Za-z_]\w*")
RESERVED = frozenset({*DTYPES, "true", "false", "inf", "nan", "dense", "graph"})
SHOWN = 16  # constants of more elements are printed as base64 of their bytes

TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<ref>%(?:"(?:[^"\\]|\\.)*"|[A-Za-z_](?:[\w.:\-]*\w)?|\d+)(?:\#\d+)?)
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<number>-?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|inf\b|nan\b))
      | (?P<symbol>`[^`]*`)
      | (?P<word>[A-Za-z_]\w*)
      | (?P<mark>[()\[\]{}=,:*])""",
    re.VERBOSE,
)

# --------------------------------------------------------------------------- print


def print_graph(graph: Graph, *, names: bool = True) -> str:
    """The graph as text; without names it depends on the computation alone (a cache key)."""
    refs = _references(graph, graph.names if names else {})
    lines = [f"graph {json.dumps(graph.name)}({', '.join(refs[n] for n in graph.inputs)}) {{"]
    lines += [
        f"  {refs[n]} = {_call(n, refs)} : {_type(n.type)}"
        for n in graph.nodes
        if refs[n].startswith("%")
    ]
    outputs = (f"{json.dumps(k)}={refs[n]}" for k, n in graph.outputs.items())
    return "\n".join([*lines, f"  return {', '.join(outputs)}", "}"]) + "\n"


def _references(graph: Graph, names: Mapping[Node, str]) -> dict[Node, str]:
    """How operands are written: %name, %number, or the number itself for a uniform constant."""
    refs: dict[Node, str] = {}
    seen: dict[str, int] = {}
    inline = {n: t for n in graph.nodes if n not in names and (t := _inline(n, names))}
    for node in graph.nodes:
        if node in inline:
            refs[node] = inline[node]
        elif node in names:
            name = names[node]
            seen[name] = seen.get(name, 0) + 1
            suffix = f"#{seen[name]}" if seen[name] > 1 else ""
            refs[node] = "%" + (name if WORD.fullmatch(name) else json.dumps(name)) + suffix
    anonymous = (n for n in graph.nodes if n not in refs)
    refs |= {node: f"%{number}" for number, node in enumerate(anonymous)}
    return refs


def _inline(node: Node, names: Mapping[Node, str]) -> str | None:
    """The text of a constant that is one number everywhere."""
    scalar = node
    if node.op.name == "broadcast" and not node.attrs["axes"] and node.inputs[0] not in names:
        scalar = node.inputs[0]
    if scalar.op.name != "constant" or scalar.shape:
        return None
    text = _number(scalar.attrs["value"].array.item())
    exact = Literal.of(np.asarray(_parse_number(text)), node.dtype) == scalar.attrs["value"]
    return f"{text}:{_type(node.type)}" if exact else None


def _call(node: Node, refs: Mapping[Node, str]) -> str:
    parts = [refs[i] for i in node.inputs]
    parts += [f"{name}={_attribute(value)}" for name, value in node.attrs.items()]
    return f"{node.op.name}({', '.join(parts)})"


def _body(body: Body) -> str:
    """The graph of a scan's step, indented below the scan."""
    graph = body.graph
    refs = _references(graph, {})
    lines = [
        f"{refs[n]} = {_call(n, refs)} : {_type(n.type)}"
        for n in graph.nodes
        if refs[n].startswith("%")
    ]
    lines.append(f"return ({', '.join(refs[n] for n in body.outputs)})")
    shown = "\n".join(lines).replace("\n", "\n    ")
    return f"graph({', '.join(refs[n] for n in body.inputs)}) {{\n    {shown}\n  }}"


def _number(value: float | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _dim(dim: Dim) -> str:
    if not isinstance(dim, Extent):
        return str(dim)
    plain = SYMBOL.fullmatch(dim.symbol) and dim.symbol not in RESERVED
    symbol = dim.symbol if plain else f"`{dim.symbol}`"
    return symbol if dim.coefficient == 1 else f"{dim.coefficient}*{symbol}"


def _type(type: TensorType) -> str:
    if isinstance(type, TupleType):
        return f"({', '.join(map(_type, type.parts))})"
    return f"{type.dtype}[{','.join(map(_dim, type.shape))}]"


def _attribute(value: Any) -> str:
    match value:
        case str():
            return json.dumps(value)
        case tuple():
            inner = ", ".join(map(_attribute, value))
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        case Extent():
            return _dim(value)
        case DType():
            return value.name
        case Body():
            return _body(value)
        case Literal():
            return _literal(value)
        case bool() | int() | float():
            return _number(value)
    raise TypeError(f"attribute {value!r} has no text")


def _literal(value: Literal) -> str:
    type = _type(TensorType(value.dtype, value.shape))
    numbers = [_number(v) for v in value.array.reshape(-1)[: SHOWN + 1].tolist()]
    if len(numbers) <= SHOWN:
        again = np.asarray([_parse_number(n) for n in numbers]).reshape(value.shape)
        if Literal.of(again, value.dtype) == value:
            return f"dense({', '.join([type, *numbers])})"
    return f'dense({type}, "{base64.b64encode(value.data).decode()}")'


def _parse_number(text: str) -> float | int | bool:
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.lstrip("-").isdigit() else float(text)


# --------------------------------------------------------------------------- parse


def parse_graph(text: str) -> Graph:
    """The graph that a text describes; ValueError naming the line where it is malformed."""
    return _Parser(text).graph()


class _Parser:
    """A reader over the tokens: each method takes the tokens of one rule of the grammar."""

    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0
        self.start = self.before = 0  # where this token and the one before it begin
        self.kind, self.value = "", ""
        self.nodes: dict[str, Node] = {}
        self.names: dict[Node, str] = {}
        self.advance()

    def error(self, message: str) -> ValueError:
        line = self.text.count("\n", 0, self.before) + 1
        return ValueError(f"graph text, line {line}: {message}")

    def advance(self) -> str:
        """Go on to the next token; gives the one before it."""
        taken = self.value
        self.before = self.start
        while self.position < len(self.text):
            match = TOKEN.match(self.text, self.position)
            self.start = self.position
            if match is None:
                self.before = self.position
                raise self.error(f"unexpected {self.text[self.position]!r}")
            self.position = match.end()
            self.kind, self.value = match.lastgroup or "", match.group()
            if self.kind != "space":
                return taken
        self.kind, self.value = "end", ""
        return taken

    def expect(self, value: str) -> None:
        if self.value != value or self.kind == "string":
            raise self.error(f"expected '{value}', found '{self.value}'")
        self.advance()

    def take(self, kind: str) -> str:
        if self.kind != kind:
            raise self.error(f"expected a {kind}, found '{self.value}'")
        return self.advance()

    def items(self, close: str) -> Any:
        """Steps through comma-separated items up to the closing mark."""
        while self.value != close or self.kind == "string":
            yield
            if self.value != close or self.kind == "string":
                self.expect(",")
        self.advance()

    def graph(self) -> Graph:
        self.expect("graph")
        name = json.loads(self.take("string"))
        self.expect("(")
        inputs = [self.take("ref") for _ in self.items(")")]
        self.expect("{")
        while self.kind == "ref":
            self.statement()
        self.expect("return")
        outputs = {}
        for _ in self.items("}"):
            key = json.loads(self.take("string"))
            self.expect("=")
            outputs[key] = self.operand()
        if self.kind != "end":
            raise self.error(f"'{self.value}' after the end")
        return Graph(name, tuple(self.node(r) for r in inputs), outputs, self.names)

    def body(self) -> Body:
        """The graph of a scan's step: its names are its own."""
        outer = self.nodes, self.names
        self.nodes, self.names = {}, {}
        self.expect("graph")
        self.expect("(")
        inputs = [self.take("ref") for _ in self.items(")")]
        self.expect("{")
        while self.kind == "ref":
            self.statement()
        self.expect("return")
        self.expect("(")
        outputs = tuple([self.operand() for _ in self.items(")")])
        self.expect("}")
        body = Body(tuple(self.node(r) for r in inputs), outputs)
        self.nodes, self.names = outer
        return body

    def node(self, ref: str) -> Node:
        if ref not in self.nodes:
            raise self.error(f"{ref} is not defined")
        return self.nodes[ref]

    def statement(self) -> None:
        ref = self.take("ref")
        if ref in self.nodes:
            raise self.error(f"{ref} is defined twice")
        self.expect("=")
        node = self.call()
        self.expect(":")
        type = self.type()
        if node.type != type:
            raise self.error(f"{ref} is {node.type}, the text says {type}")
        self.nodes[ref] = node
        if not ref[1].isdigit():
            name = re.sub(r"#\d+$", "", ref[1:])
            self.names[node] = json.loads(name) if name.startswith('"') else name

    def call(self) -> Node:
        op = self.take("word")
        if op not in REGISTRY:
            raise self.error(f"unknown op '{op}'")
        self.expect("(")
        operands: list[Node] = []
        attrs: dict[str, Any] = {}
        for _ in self.items(")"):
            if self.kind == "word" and self.value not in RESERVED:
                key = self.advance()
                self.expect("=")
                attrs[key] = self.attribute()
            else:
                operands.append(self.operand())
        try:
            return make(op, *operands, **attrs)
        except (TypeError, ValueError) as reason:
            raise self.error(str(reason)) from reason

    def operand(self) -> Node:
        if self.kind == "ref":
            return self.node(self.advance())
        number = _parse_number(self.advance())
        self.expect(":")
        type = self.type()
        scalar = make("constant", value=Literal.of(np.asarray(number), type.dtype))
        return broadcast_to(scalar, type.shape)

    def type(self) -> TensorType:
        if self.value == "(":
            self.advance()
            return TupleType.of([self.type() for _ in self.items(")")])
        dtype = DTYPES.get(self.take("word"))
        if dtype is None:
            raise self.error("expected a dtype")
        self.expect("[")
        return TensorType(dtype, tuple(self.dim() for _ in self.items("]")))

    def dim(self) -> Dim:
        if self.kind == "number":
            number = int(self.advance())
            if self.value != "*":
                return number
            self.advance()
            return Extent(number, self.symbol())
        return Extent(1, self.symbol())

    def symbol(self) -> str:
        return self.advance().strip("`") if self.kind == "symbol" else self.take("word")

    def attribute(self) -> Any:
        match self.kind, self.value:
            case "string", _:
                return json.loads(self.advance())
            case "mark", "(":
                self.advance()
                return tuple([self.attribute() for _ in self.items(")")])
            case "word", "dense":
                return self.literal()
            case "word", "graph":
                return self.body()
            case "word", "true" | "false":
                return self.advance() == "true"
            case "word", word if word in DTYPES:
                return DTYPES[self.advance()]
            case "number", text if not text.lstrip("-").isdigit():
                return float(self.advance())
        return self.dim()

    def literal(self) -> Literal:
        self.expect("dense")
        self.expect("(")
        type = self.type()
        shape = tuple(d for d in type.shape if isinstance(d, int))
        numbers: list[float | int | bool] = []
        data: bytes | None = None
        if self.value == ",":
            self.advance()
        for _ in self.items(")"):
            if self.kind == "string":
                data = base64.b64decode(json.loads(self.advance()))
            else:
                numbers.append(_parse_number(self.advance()))
        if data is not None:
            return Literal(type.dtype, shape, data)
        return Literal.of(np.asarray(numbers).reshape(shape), type.dtype)
